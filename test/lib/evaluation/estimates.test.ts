import { describe, expect, it } from 'vitest';
import { Random } from '../../../lib/calibration/index.js';
import { clusteredMean, quantile } from '../../../lib/evaluation/estimates.js';

describe('clusteredMean', () => {
  it('is the mean over tokens, whatever the clusters', () => {
    const clusters = [
      { total: 6, tokens: 3 },
      { total: 0, tokens: 0 },
      { total: 10, tokens: 2 },
    ];
    expect(clusteredMean(clusters).mean).toBe(16 / 5);
  });

  it('for clusters of one token has the classical standard error', () => {
    const values = [1, 4, 2, 8, 5];
    const mean = 4;
    const variance = values.reduce((sum, value) => sum + (value - mean) ** 2, 0) / 4;
    const estimate = clusteredMean(values.map((total) => ({ total, tokens: 1 })));
    expect(estimate.standardError).toBeCloseTo(Math.sqrt(variance / 5), 12);
  });

  it('does not gain certainty from tokens that say the same', () => {
    const once = clusteredMean([1, 2, 4].map((total) => ({ total, tokens: 1 })));
    const repeated = clusteredMean([1, 2, 4].map((value) => ({ total: 100 * value, tokens: 100 })));
    expect(repeated.standardError).toBeCloseTo(once.standardError!, 12);
  });

  it('covers the true mean about as often as it should', () => {
    const random = new Random(1);
    let covered = 0;
    for (let trial = 0; trial < 400; trial++) {
      const clusters = Array.from({ length: 40 }, () => {
        const [shift, tokens] = [random.next(), 5 + random.below(20)];
        let total = 0;
        for (let t = 0; t < tokens; t++) total += shift + random.next();
        return { total, tokens };
      });
      const { mean, standardError } = clusteredMean(clusters);
      if (Math.abs(mean - 1) < 1.96 * standardError!) covered++;
    }
    expect(covered / 400).toBeGreaterThan(0.9);
    expect(covered / 400).toBeLessThan(0.99);
  });

  it('has no standard error for one cluster', () => {
    expect(clusteredMean([{ total: 3, tokens: 2 }])).toEqual({ mean: 1.5, standardError: null });
  });
});

describe('quantile', () => {
  it('is the smallest value that the share does not exceed', () => {
    const ascending = Float64Array.from({ length: 200 }, (_, i) => i + 1);
    expect([0.5, 0.99, 0.999, 1].map((share) => quantile(ascending, share))).toEqual([100, 198, 200, 200]);
    expect(quantile(Float64Array.of(7), 0.99)).toBe(7);
  });
});
