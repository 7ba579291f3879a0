/** Where the samples of a time lie, in the samples' own unit. */
export interface Summary {
  median: number;
  p10: number;
  p90: number;
  samples: number;
}

/** The value below which a share of the samples lies, linear between neighbours; NaN where there is none. */
export function quantile(values: readonly number[], share: number): number {
  const sorted = [...values].sort((a, b) => a - b);
  const position = share * (sorted.length - 1);
  const below = sorted[Math.floor(position)] ?? Number.NaN;
  const above = sorted[Math.ceil(position)] ?? Number.NaN;
  return below + (above - below) * (position - Math.floor(position));
}

export const median = (values: readonly number[]): number => quantile(values, 0.5);

export const summarize = (values: readonly number[]): Summary => ({
  median: median(values),
  p10: quantile(values, 0.1),
  p90: quantile(values, 0.9),
  samples: values.length,
});

/**
 * What one contestant's time is of another's. Each round compares the medians of its own two bursts, which were taken
 * one right after the other: the speed of a shared machine drifts by half within minutes, and the drift cancels.
 */
export function ratioOfRounds(above: readonly (readonly number[])[], below: readonly (readonly number[])[]): Summary {
  return summarize(above.map((burst, round) => median(burst) / median(below[round] ?? [])));
}

/** Sum of squared errors over sum of squares. NaN wherever `found` has one. */
export function normalizedMeanSquaredError(found: ArrayLike<number>, exact: ArrayLike<number>): number {
  let error = 0;
  let power = 0;
  for (let i = 0; i < exact.length; i++) {
    error += ((found[i] ?? Number.NaN) - (exact[i] ?? Number.NaN)) ** 2;
    power += (exact[i] ?? Number.NaN) ** 2;
  }
  return error / power;
}
