import type { Histogram } from '../comparison/index.js';
import { linearAxis, tickText } from './axis.js';
import { pagePaint } from './frame.js';
import { attributes, lineSvg, pictureSvg, textSvg } from './svg.js';

export interface DrawnHistogram {
  histogram: Histogram;
  colour: string;
  filled: boolean;
}

/** Histograms over one axis, each as high as its largest bin. */
export function histogramPlot(drawn: readonly DrawnHistogram[], axisTitle: string, title: string): string {
  const [width, height, top, bottom] = [360, 190, 12, 148];
  const limit = drawn[0]?.histogram.limit ?? 1;
  const x = linearAxis(-limit, limit, 12, width - 12);
  const parts = [
    ...x
      .ticks()
      .flatMap((tick) => [
        lineSvg([x.at(tick), top], [x.at(tick), bottom], { stroke: pagePaint.grid }),
        textSvg(x.at(tick), bottom + 16, tickText(tick), { 'text-anchor': 'middle', fill: pagePaint.text }),
      ]),
    ...drawn.map(({ histogram, colour, filled }) => {
      const outline = outlineOf(histogram, x.at, bottom, bottom - top);
      const fill = filled ? { fill: colour, 'fill-opacity': 0.35 } : { fill: 'none' };
      return `<path${attributes({ d: outline, stroke: colour, 'stroke-width': 1.4, ...fill })}/>`;
    }),
    lineSvg([x.begin, bottom], [x.end, bottom], { stroke: pagePaint.axis }),
    textSvg(width / 2, bottom + 34, axisTitle, { 'text-anchor': 'middle', fill: pagePaint.text }),
  ];
  return pictureSvg(width, height, title, parts);
}

/** Steps over the bins, from the axis up and back to it. */
function outlineOf({ limit, counts }: Histogram, at: (value: number) => number, bottom: number, room: number): string {
  const most = counts.reduce((a, b) => Math.max(a, b), 1);
  const edge = (bin: number) => at(-limit + (2 * limit * bin) / counts.length).toFixed(1);
  const steps = counts.map((count, bin) => `V${(bottom - (count / most) * room).toFixed(1)}H${edge(bin + 1)}`);
  return `M${edge(0)} ${bottom}${steps.join('')}V${bottom}`;
}
