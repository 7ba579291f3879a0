import { describe, expect, it } from 'vitest';
import { normalizedMeanSquaredError, quantile, ratioOfRounds, summarize } from '../../../lib/benchmark/index.js';

describe('statistics', () => {
  it('finds quantiles between neighbours, in any order of the samples', () => {
    const values = [40, 10, 30, 20];
    expect(quantile(values, 0)).toBe(10);
    expect(quantile(values, 0.5)).toBe(25);
    expect(quantile(values, 1)).toBe(40);
    expect(values).toEqual([40, 10, 30, 20]);
    expect(quantile([], 0.5)).toBeNaN();
  });

  it('summarizes', () => {
    const values = Array.from({ length: 101 }, (_, i) => 100 - i);
    expect(summarize(values)).toEqual({ median: 50, p10: 10, p90: 90, samples: 101 });
  });

  it('compares bursts of the same round, so that a machine that slows down changes no ratio', () => {
    const drift = [1, 2, 5, 3];
    const ours = drift.map((slow) => [slow, slow, 100 * slow]);
    const theirs = drift.map((slow) => [0, 3 * slow, 3 * slow]);
    expect(ratioOfRounds(theirs, ours)).toEqual({ median: 3, p10: 3, p90: 3, samples: 4 });
  });

  it('measures errors against the power of the exact result', () => {
    expect(normalizedMeanSquaredError([3, 4], [3, 4])).toBe(0);
    expect(normalizedMeanSquaredError([3, 5], [3, 4])).toBe(1 / 25);
    expect(normalizedMeanSquaredError([0, 0], [3, 4])).toBe(1);
  });

  it('lets no result pass that was not written', () => {
    expect(normalizedMeanSquaredError([3, Number.NaN], [3, 4])).toBeNaN();
    expect(normalizedMeanSquaredError([3], [3, 4])).toBeNaN();
  });
});
