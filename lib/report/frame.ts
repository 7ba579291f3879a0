import { type Axis, tickText } from './axis.js';
import { lineSvg, textSvg } from './svg.js';

/** Colours of what is no data. */
export interface Paint {
  grid: string;
  axis: string;
  text: string;
  page: string;
}

/** For a picture on its own, on white. */
export const printPaint: Paint = { grid: '#e4e4e4', axis: '#333', text: '#000', page: 'white' };
/** For a picture in a page that knows light and dark. */
export const pagePaint: Paint = { grid: 'var(--grid)', axis: 'var(--axis)', text: 'var(--text)', page: 'var(--card)' };

/** The lines of both axes' ticks, their labels, and what the axes show: below the one, above the other. */
export function frameSvg(x: Axis, y: Axis, titles: { x: string; y: string }, paint: Paint): string {
  const line = { stroke: paint.grid };
  const axis = { stroke: paint.axis };
  const [middle, end] = [
    { 'text-anchor': 'middle', fill: paint.text },
    { 'text-anchor': 'end', fill: paint.text },
  ];
  return [
    ...x.ticks().map((tick) => lineSvg([x.at(tick), y.begin], [x.at(tick), y.end], line)),
    ...y.ticks().map((tick) => lineSvg([x.begin, y.at(tick)], [x.end, y.at(tick)], line)),
    ...x.ticks().map((tick) => textSvg(x.at(tick), y.begin + 16, tickText(tick), middle)),
    ...y.ticks().map((tick) => textSvg(x.begin - 6, y.at(tick) + 4, tickText(tick), end)),
    lineSvg([x.begin, y.begin], [x.end, y.begin], axis),
    lineSvg([x.begin, y.begin], [x.begin, y.end], axis),
    textSvg((x.begin + x.end) / 2, y.begin + 36, titles.x, middle),
    textSvg(x.begin, y.end - 10, titles.y, { fill: paint.text }),
  ].join('\n');
}
