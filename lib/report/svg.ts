export type Attributes = Readonly<Record<string, string | number>>;

const entities: Readonly<Record<string, string>> = { '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;' };
/** Text as it may stand in an element or an attribute. */
export const escaped = (text: string): string => text.replace(/[&<>"]/g, (sign) => entities[sign] ?? sign);

/** ` name="value"` for each. */
export const attributes = (values: Attributes): string =>
  Object.entries(values)
    .map(([name, value]) => ` ${name}="${escaped(String(value))}"`)
    .join('');

export const textSvg = (x: number, y: number, text: string, style: Attributes): string =>
  `<text${attributes({ x: x.toFixed(1), y: y.toFixed(1), ...style })}>${escaped(text)}</text>`;

export function lineSvg(from: readonly [number, number], to: readonly [number, number], style: Attributes): string {
  const [x1, y1, x2, y2] = [...from, ...to].map((value) => value.toFixed(1)) as [string, string, string, string];
  return `<line${attributes({ x1, y1, x2, y2, ...style })}/>`;
}

/** Paths around the origin, some ten pixels wide. */
const paths = {
  circle: 'M-5 0a5 5 0 1 0 10 0a5 5 0 1 0 -10 0z',
  square: 'M-4.5 -4.5h9v9h-9z',
  triangle: 'M0 -5.5L5.5 4.5h-11z',
  diamond: 'M0 -6L6 0L0 6L-6 0z',
  cross: 'M-5 -5L5 5M-5 5L5 -5',
  plus: 'M-6 0h12M0 -6v12',
  star: 'M-6 0h12M-3 -5.2L3 5.2M-3 5.2L3 -5.2',
} as const;
export type Marker = keyof typeof paths;
export const markers = Object.keys(paths) as Marker[];

/** A marker, with a tooltip where there is a title. Hollow ones are outlines filled with the colour of the page. */
export function markerSvg(
  marker: Marker,
  [x, y]: readonly [number, number],
  colour: string,
  filled: boolean,
  title: string,
  page = 'white',
): string {
  const place = { d: paths[marker], transform: `translate(${x.toFixed(1)} ${y.toFixed(1)})` };
  const paint = { fill: filled ? colour : page, 'fill-opacity': 0.75, stroke: colour, 'stroke-width': 1.8 };
  return `<path${attributes({ ...place, ...paint })}>${title && `<title>${escaped(title)}</title>`}</path>`;
}

/** A standard error: a line with caps at both ends, which may lie side by side or one above the other. */
export function errorBarSvg(from: readonly [number, number], to: readonly [number, number], colour: string): string {
  const style = { stroke: colour, 'stroke-width': 1.4 };
  const [dx, dy] = from[1] === to[1] ? [0, 3.5] : [3.5, 0];
  const cap = ([x, y]: readonly [number, number]) => lineSvg([x - dx, y - dy], [x + dx, y + dy], style);
  return [lineSvg(from, to, style), cap(from), cap(to)].join('');
}

/** A picture within a page, as wide as its place; without a title it is an ornament of the text beside it. */
export function pictureSvg(width: number, height: number, title: string, parts: readonly string[]): string {
  const role = title ? { role: 'img' } : { 'aria-hidden': 'true' };
  return [
    `<svg${attributes({ viewBox: `0 0 ${width} ${height}`, ...role })}>`,
    ...(title ? [`<title>${escaped(title)}</title>`] : []),
    ...parts.filter((part) => part !== ''),
    '</svg>',
  ].join('\n');
}
