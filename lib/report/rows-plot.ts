import type { Estimate } from '../comparison/index.js';
import { logAxis, tickText } from './axis.js';
import { pagePaint } from './frame.js';
import { errorBarSvg, lineSvg, type Marker, markerSvg, pictureSvg, textSvg } from './svg.js';

export interface PlottedRow {
  label: string;
  /** Drawn on one line, joined where there are several. */
  marks: readonly Mark[];
}

export interface Mark {
  value: Estimate;
  colour: string;
  marker: Marker;
  filled: boolean;
  /** What a pointer that rests on it reads. */
  title: string;
}

const line = 20;
const top = 8;

/**
 * A line a row: its label, and estimates with their standard errors on a logarithmic axis that all rows share. Legible with any
 * number of rows, and on a narrow screen.
 */
export function rowsPlot(rows: readonly PlottedRow[], axisTitle: string, title: string): string {
  const width = 360;
  const longest = rows.reduce((most, { label }) => Math.max(most, label.length), 0);
  const left = Math.min(190, 14 + 6.3 * longest);
  const bottom = top + line * rows.length;
  const values = rows.flatMap(({ marks }) =>
    marks.flatMap(({ value: { mean, standardError } }) => [mean, mean + (standardError ?? 0)]),
  );
  const x = logAxis(values, left, width - 14, 1.25);
  const ticks = x.ticks();
  const parts = [
    ...ticks.map((tick) => lineSvg([x.at(tick), top], [x.at(tick), bottom], { stroke: pagePaint.grid })),
    ...spaced(ticks, x.at).map((tick) =>
      textSvg(x.at(tick), bottom + 15, tickText(tick), { 'text-anchor': 'middle', fill: pagePaint.text }),
    ),
    textSvg((left + width) / 2, bottom + 33, axisTitle, { 'text-anchor': 'middle', fill: pagePaint.text }),
    ...rows.flatMap(({ label, marks }, index) => {
      const y = top + line * (index + 0.5);
      const places = marks.map(({ value }) => x.at(value.mean));
      return [
        textSvg(left - 8, y + 4, shortened(label), { 'text-anchor': 'end', fill: pagePaint.text }),
        lineSvg([Math.min(...places), y], [Math.max(...places), y], { stroke: pagePaint.axis, 'stroke-opacity': 0.5 }),
        ...marks.flatMap(({ value: { mean, standardError }, colour, marker, filled, title: text }) => [
          standardError === null
            ? ''
            : errorBarSvg([x.at(mean - standardError), y], [x.at(mean + standardError), y], colour),
          markerSvg(marker, [x.at(mean), y], colour, filled, text, pagePaint.page),
        ]),
      ];
    }),
  ];
  return pictureSvg(width, bottom + 42, title, parts);
}

const shortened = (label: string): string => (label.length > 28 ? `${label.slice(0, 27)}…` : label);

/** Ticks whose labels have room between them. */
function spaced(ticks: readonly number[], at: (tick: number) => number): number[] {
  let last = Number.NEGATIVE_INFINITY;
  return ticks.filter((tick) => {
    if (at(tick) - last < 34) return false;
    last = at(tick);
    return true;
  });
}
