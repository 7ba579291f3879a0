import fc from 'fast-check';
import { expect, test } from 'vitest';
import { Random } from '../../../lib/calibration/index.js';

const drawn = (seed: number, count: number) => {
  const random = new Random(seed);
  return Array.from({ length: count }, () => random.nextWord());
};

test('one seed gives one stream, and neighbouring seeds give others', () => {
  fc.assert(
    fc.property(fc.maxSafeNat(), (seed) => {
      expect(drawn(seed, 8)).toEqual(drawn(seed, 8));
      const other = seed === Number.MAX_SAFE_INTEGER ? 0 : seed + 1;
      expect(drawn(seed, 8)).not.toEqual(drawn(other, 8));
    }),
  );
  expect(drawn(1, 4)).not.toEqual(drawn(1 + 2 ** 32, 4));
});

test('numbers below a bound stay below it and come equally often', () => {
  const random = new Random(3);
  const bins = new Array<number>(7).fill(0);
  const draws = 70_000;
  for (let i = 0; i < draws; i++) bins[random.below(7)]! += 1;
  const chiSquared = bins.reduce((sum, n) => sum + (n - draws / 7) ** 2 / (draws / 7), 0);
  // 6 degrees of freedom: 27.9 is passed once in 10,000 streams.
  expect(chiSquared).toBeLessThan(27.9);
  fc.assert(fc.property(fc.integer({ min: 1, max: Number.MAX_SAFE_INTEGER }), (n) => new Random(n).below(n) < n));
  expect(new Random(0).below(1)).toBe(0);
});

test('fractions fill [0, 1) evenly, bit by bit', () => {
  const random = new Random(11);
  const count = 20_000;
  const values = Array.from({ length: count }, () => random.next());
  expect(Math.min(...values)).toBeGreaterThanOrEqual(0);
  expect(Math.max(...values)).toBeLessThan(1);
  const mean = values.reduce((sum, v) => sum + v, 0) / count;
  expect(Math.abs(mean - 0.5)).toBeLessThan(4 / Math.sqrt(12 * count));
  for (let bit = 0; bit < 53; bit++) {
    const ones = values.filter((v) => Math.floor(v * 2 ** (bit + 1)) % 2 === 1).length;
    expect(Math.abs(ones / count - 0.5), `bit ${bit}`).toBeLessThan(5 / (2 * Math.sqrt(count)));
  }
});
