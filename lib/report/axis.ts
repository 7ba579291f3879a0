/** Maps a range of values to a range of pixels; `begin` may lie behind `end`, as on an axis that points up. */
export interface Axis {
  readonly low: number;
  readonly high: number;
  readonly begin: number;
  readonly end: number;
  /** The pixel of a value; values beyond the range lie on its nearer end. */
  at(value: number): number;
  /** Round values within the range. */
  ticks(): number[];
}

/** Labels need room: more would run into each other. */
const mostTicks = 9;
const fewestTicks = 3;

/** A logarithmic axis over positive values, with room around them. Values that are zero or less lie on the low end. */
export function logAxis(values: readonly number[], begin: number, end: number, room = 1.5): Axis {
  const positive = values.filter((value) => value > 0 && Number.isFinite(value));
  const [low, high] = positive.length
    ? [positive.reduce((a, b) => Math.min(a, b)) / room, positive.reduce((a, b) => Math.max(a, b)) * room]
    : [0.1, 10];
  return {
    ...{ low, high, begin, end },
    at: (value) => place(Math.log(Math.max(value, low) / low) / Math.log(high / low), begin, end),
    ticks: () => logTicks(low, high),
  };
}

/** A linear axis from `low` to `high`. */
export function linearAxis(low: number, high: number, begin: number, end: number): Axis {
  return {
    ...{ low, high, begin, end },
    at: (value) => place((value - low) / (high - low), begin, end),
    ticks: () => linearTicks(low, high),
  };
}

const place = (share: number, begin: number, end: number): number =>
  begin + Math.min(1, Math.max(0, share)) * (end - begin);

/**
 * 1, 2 and 5 of every decade; only the ones, or every second or third of them, where that would be too many, and evenly spaced
 * values where it would be too few.
 */
function logTicks(low: number, high: number): number[] {
  const first = Math.floor(Math.log10(low));
  const decades = Array.from({ length: Math.ceil(Math.log10(high)) - first + 1 }, (_, i) => first + i);
  const within = (ticks: number[]) => ticks.filter((tick) => tick >= low && tick <= high);
  const all = within(decades.flatMap((decade) => [1, 2, 5].map((mantissa) => mantissa * 10 ** decade)));
  if (all.length < fewestTicks) return linearTicks(low, high);
  if (all.length <= mostTicks) return all;
  const step = Math.ceil(decades.length / mostTicks);
  return within(decades.filter((decade) => decade % step === 0).map((decade) => 10 ** decade));
}

/** Multiples of 1, 2 or 5 times a power of ten. */
function linearTicks(low: number, high: number): number[] {
  const least = (high - low) / (mostTicks - 2);
  const decade = 10 ** Math.floor(Math.log10(least));
  const step = ([1, 2, 5].find((factor) => factor * decade >= least) ?? 10) * decade;
  const [first, last] = [Math.ceil(low / step), Math.floor(high / step)];
  return Array.from({ length: Math.max(0, last - first + 1) }, (_, i) => Number(((first + i) * step).toPrecision(12)));
}

/** A tick as short as it can be told: 0.05, 20, 1e-6. */
export const tickText = (tick: number): string =>
  tick !== 0 && (Math.abs(tick) < 1e-3 || Math.abs(tick) >= 1e5) ? tick.toExponential().replace('+', '') : String(tick);
