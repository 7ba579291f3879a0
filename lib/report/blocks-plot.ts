import { linearAxis, logAxis } from './axis.js';
import { frameSvg, pagePaint } from './frame.js';
import { lineSvg, type Marker, markerSvg, pictureSvg } from './svg.js';

/** A number of the same kind of layer in every block. */
export interface BlockSeries {
  name: string;
  colour: string;
  marker: Marker;
  points: readonly { block: number; value: number; title: string }[];
}

/** Values over the depth of the model, on a logarithmic axis; neighbours of a series are joined. */
export function blocksPlot(series: readonly BlockSeries[], width: number, axisTitle: string, title: string): string {
  const height = Math.round(Math.min(420, Math.max(320, width * 0.5)));
  const all = series.flatMap(({ points }) => points);
  const last = all.reduce((most, { block }) => Math.max(most, block), 0);
  const x = linearAxis(-0.5, last + 0.5, 58, width - 12);
  // Half blocks are none.
  const whole = { ...x, ticks: () => x.ticks().filter(Number.isInteger) };
  const y = logAxis(
    all.map(({ value }) => value),
    height - 44,
    34,
  );
  const drawn = series.flatMap(({ colour, marker, points }) => [
    ...points.slice(1).map((point, i) => {
      const before = points[i] ?? point;
      const style = { stroke: colour, 'stroke-width': 1.5, 'stroke-opacity': 0.6 };
      return lineSvg([x.at(before.block), y.at(before.value)], [x.at(point.block), y.at(point.value)], style);
    }),
    ...points.map(({ block, value, title: text }) =>
      markerSvg(marker, [x.at(block), y.at(value)], colour, true, text, pagePaint.page),
    ),
  ]);
  return pictureSvg(width, height, title, [frameSvg(whole, y, { x: 'block', y: axisTitle }, pagePaint), ...drawn]);
}
