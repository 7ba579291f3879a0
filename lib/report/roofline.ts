import { type BenchRow, type MachineCard, median } from '../benchmark/index.js';
import { type Axis, logAxis } from './axis.js';
import { frameSvg, printPaint } from './frame.js';
import { attributes, lineSvg, type Marker, markerSvg, textSvg } from './svg.js';

/** Highest rate of fp32 multiply-adds, in 1e9 a second, by number of threads. */
export type Peaks = Readonly<Record<number, number>>;

const panel = { width: 430, height: 400, gap: 64, top: 112 };
const legend = { height: 84, column: 150 };
const titleWidth = 480;
const colours: Readonly<Record<string, string>> = {
  W2: '#0072b2',
  W3: '#009e73',
  W4: '#d55e00',
  BCQ2: '#56b4e9',
  BCQ3: '#cc79a7',
  BCQ4: '#e69f00',
};
const grey = '#888';
const markers: Readonly<Record<string, Marker>> = {
  fast: 'circle',
  accurate: 'square',
  exact: 'triangle',
  int8: 'cross',
  fp32: 'plus',
  lookUp: 'star',
};

/** Multiplications with a weight for every packed byte. */
const intensityOf = (row: BenchRow): number => row.gigaMacsPerSecond / row.gigabytesPerSecond;
/** Variants of one width or mode look the same. */
const widthOf = (row: BenchRow): string => row.weights.replace(/r\d+$/, '');
const modeOf = (row: BenchRow): string => row.mode.replace(/-invariant| .*/, '');

/**
 * A roofline plot with a panel for each number of threads: the rate of every row over its arithmetic intensity. The slope
 * is the bandwidth measured beside the rows, the level the peak of fp32 multiply-adds where it is known. Points left of the
 * slope had their weights in a cache; points above the level computed in integers.
 */
export function rooflineSvg(machine: MachineCard, all: readonly BenchRow[], peaks: Peaks = {}): string {
  const rows = all.filter(({ failure }) => failure === undefined);
  const threads = [...new Set(rows.map((row) => row.threads))].sort((a, b) => a - b);
  const entries = legendOf(rows);
  const columns = Math.max(...entries.map((line) => line.length));
  const inside = Math.max(threads.length * (panel.gap + panel.width) - panel.gap, titleWidth, columns * legend.column);
  const width = panel.gap + inside + 24;
  const bottom = panel.top + panel.height;
  const height = bottom + 60 + legend.height;
  const panels = threads.map((count, i) => {
    const left = panel.gap + i * (panel.gap + panel.width);
    const rates = [...rows.map((row) => row.gigaMacsPerSecond), ...Object.values(peaks)];
    const x = logAxis(rows.map(intensityOf), left, left + panel.width);
    const y = logAxis(rates, bottom, panel.top);
    const own = rows.filter((row) => row.threads === count);
    const bandwidth = median(own.map((row) => row.readGigabytesPerSecond));
    const caption = captionOf(count, bandwidth, peaks[count]);
    return [panelSvg(x, y, caption), roofSvg(x, y, bandwidth, peaks[count]), ...own.map((row) => pointSvg(x, y, row))];
  });
  const size = { xmlns: 'http://www.w3.org/2000/svg', viewBox: `0 0 ${width} ${height}`, width, height };
  return [
    `<svg${attributes({ ...size, 'font-family': 'sans-serif', 'font-size': 12 })}>`,
    `<rect${attributes({ width, height, fill: 'white' })}/>`,
    textSvg(panel.gap, 30, 'Products with low-bit weights, and what the machine gives', { 'font-size': 16 }),
    textSvg(panel.gap, 50, `${machine.processor}, ${machine.isa}, ${machine.date}`, { fill: '#555' }),
    ...panels.flat(),
    legendSvg(entries, bottom + 64),
    '</svg>\n',
  ].join('\n');
}

const captionOf = (threads: number, bandwidth: number, peak: number | undefined): string =>
  `${threads} thread${threads === 1 ? '' : 's'}, memory reads ${bandwidth.toFixed(1)} GB/s` +
  (peak === undefined ? '' : `, fp32 peak ${peak.toFixed(0)}e9 a second`);

function panelSvg(x: Axis, y: Axis, caption: string): string {
  return [
    frameSvg(x, y, { x: 'multiplications for every packed byte', y: '1e9 multiplications a second' }, printPaint),
    textSvg(x.begin, y.end - 26, caption, { fill: '#444' }),
  ].join('\n');
}

/** The slope rises to the level, or to the end of the panel. */
function roofSvg(x: Axis, y: Axis, bandwidth: number, peak: number | undefined): string {
  const knee = Math.min((peak ?? y.high) / bandwidth, x.high);
  const begin = Math.max(x.low, y.low / bandwidth);
  const line = { stroke: '#444', 'stroke-width': 1.5 };
  const end: [number, number] = [x.at(knee), y.at(knee * bandwidth)];
  const slope = lineSvg([x.at(begin), y.at(begin * bandwidth)], end, line);
  return peak === undefined ? slope : `${slope}\n${lineSvg(end, [x.end, y.at(peak)], line)}`;
}

function pointSvg(x: Axis, y: Axis, row: BenchRow): string {
  const title = `${row.by} ${row.mode} ${row.weights}, ${row.shape}, ${row.tokens} tokens, ${row.caches}: ${row.milliseconds.toFixed(4)} ms`;
  const at: [number, number] = [x.at(intensityOf(row)), y.at(row.gigaMacsPerSecond)];
  return markerSvg(markers[modeOf(row)] ?? 'circle', at, colours[widthOf(row)] ?? grey, row.caches !== 'cold', title);
}

interface LegendEntry {
  text: string;
  marker: Marker;
  colour: string;
  filled: boolean;
}

/** Line by line: widths, modes, caches. */
function legendOf(rows: readonly BenchRow[]): LegendEntry[][] {
  const unique = (names: string[]) => [...new Set(names)].sort();
  return [
    unique(rows.map(widthOf)).map((name) => {
      return { text: name, marker: 'circle', colour: colours[name] ?? grey, filled: true };
    }),
    unique(rows.map((row) => `${row.by} ${modeOf(row)}`)).map((name) => {
      return { text: name, marker: markers[name.split(' ')[1] ?? ''] ?? 'circle', colour: grey, filled: true };
    }),
    unique(rows.map((row) => row.caches)).map((name) => {
      return { text: `weights ${name}`, marker: 'circle', colour: grey, filled: name !== 'cold' };
    }),
  ];
}

const legendSvg = (lines: readonly LegendEntry[][], top: number): string =>
  lines
    .flatMap((line, row) =>
      line.flatMap(({ text, marker, colour, filled }, column) => {
        const [left, middle] = [panel.gap + column * legend.column, top + row * 22];
        return [markerSvg(marker, [left, middle], colour, filled, text), textSvg(left + 12, middle + 4, text, {})];
      }),
    )
    .join('\n');
