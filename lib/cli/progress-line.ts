import { bytesText } from '../formats/index.js';
import { duration } from './table.js';

/** A step for a person: what is done, the share of everything, and the seconds that are left where they are known. */
export interface Step {
  what: string;
  share: number;
  secondsLeft: number | null;
}

/** Columns of the longest bar, and of a text that is worth its place. */
const [longestBar, readable] = [30, 24];

/**
 * A step on one line of a terminal: bar, share, time left, what is done, and memory. Where they do not fit, the bar is shorter,
 * then memory is left out, and then what is done loses its end; the share and the time stay.
 *
 * @param columns of the terminal; the last one is left free, since some terminals begin a new line behind it.
 */
export function progressLine({ what, share, secondsLeft }: Step, memoryBytes: number, columns: number): string {
  const width = Math.max(1, columns - 1);
  const percent = `${Math.floor(100 * share)}%`.padStart(4);
  const head = secondsLeft === null ? percent : `${percent}, ${duration(secondsLeft)} left`;
  const bar = barOf(share, Math.min(longestBar, Math.floor((width - head.length - readable) / 3)));
  const begin = `${bar}${head}, `;
  const memory = `, ${bytesText(memoryBytes)}`;
  const room = width - begin.length;
  const text = shortNames(what);
  if (room < readable) return cut(`${begin}${text}`, width);
  if (text.length + memory.length <= room) return begin + text + memory;
  const withMemory = room - memory.length;
  return withMemory < readable ? begin + cut(text, room) : begin + cut(text, withMemory) + memory;
}

/** Of a layer's name what its block does not tell already. */
const shortNames = (text: string): string =>
  text.replace(/\bmodel\.layers\.\d+\.([\w.]+?)(?:\.weight)?(?=[:,\s]|$)/g, '$1');

function barOf(share: number, size: number): string {
  if (size < 5) return '';
  const full = Math.round(share * size);
  return `${'█'.repeat(full)}${'░'.repeat(size - full)} `;
}

const cut = (text: string, room: number): string => (text.length <= room ? text : `${text.slice(0, room - 1)}…`);
