import { expect, test } from 'vitest';
import { quantize } from '../../../lib/quantization/index.js';
import { Tensor } from '../../../lib/tensor/index.js';
import { energy, normal, quantized } from './matrices.js';

const [m, k] = [18, 96];
const recipe = (options: Record<string, unknown> = {}) => ({ method: 'hqq', bits: 3, groupSize: 32, ...options });
const magnitude = (w: Float32Array, weights: Float32Array) =>
  weights.reduce((sum, v, i) => sum + Math.abs(v - w[i]!), 0);

/** Normal weights among which a few are large, as a trained layer's are. */
function withOutliers(seed: number): Float32Array {
  const w = normal(m, k, seed, 0.5);
  for (let i = 0; i < w.length; i += 37) w[i]! *= 6;
  return w;
}

test('a real offset a group is stored', async () => {
  using q = await quantize(Tensor.from(normal(m, k, 1), [m, k]), recipe());
  expect(q.layout).toMatchObject({ kind: 'uniform', offsets: 'real' });
  expect(q.offsets).toMatchObject({ dtype: 'f16' });
});

test('more iterations never make the mean magnitude of the error larger, and the first ones make it smaller', async () => {
  for (const bits of [2, 3, 4]) {
    const w = withOutliers(2);
    const errors: number[] = [];
    for (const iterations of [0, 1, 5, 20])
      errors.push(magnitude(w, (await quantized(w, k, recipe({ bits, iterations }))).weights));
    for (let i = 1; i < errors.length; i++) expect(errors[i]).toBeLessThanOrEqual(errors[i - 1]! * (1 + 1e-6));
    expect(errors.at(-1)).toBeLessThan(0.98 * errors[0]!);
  }
});

test('every code is the nearest level', async () => {
  const w = withOutliers(3);
  const { weights } = await quantized(w, k, recipe());
  for (let begin = 0; begin < w.length; begin += 32) {
    const levels = new Set(weights.subarray(begin, begin + 32));
    for (let i = begin; i < begin + 32; i++)
      for (const level of levels) expect(Math.abs(weights[i]! - w[i]!)).toBeLessThanOrEqual(Math.abs(level - w[i]!));
  }
});

test('the unit of the weights matters as beta’s unit says', async () => {
  const w = withOutliers(4).map((v) => Math.fround(v));
  const plain = await quantized(w, k, recipe());
  for (const factor of [0.25, 4]) {
    const scaled = await quantized(
      w.map((v) => v * factor),
      k,
      recipe({ beta: 10 * factor ** (0.7 - 2) }),
    );
    const back = scaled.weights.map((v) => v / factor);
    expect(
      energy(
        back.map((v, i) => v - plain.weights[i]!),
        k,
      ),
    ).toBeLessThan(1e-6 * energy(w, k));
  }
});

test('zeros and constants are hit, symmetric grids refused', async () => {
  for (const value of [0, -0.375]) {
    const { weights, report } = await quantized(new Float32Array(m * k).fill(value), k, recipe());
    expect(weights.every((v) => v === value)).toBe(true);
    expect(report).toMatchObject({ relativeError: 0, damping: null, warnings: [] });
  }
  const w = normal(m, k, 5);
  await expect(quantized(w, k, recipe({ symmetric: true }))).rejects.toMatchObject({ where: 'recipe.symmetric' });
  const overrides = [{ match: '*', symmetric: true }];
  await expect(quantized(w, k, recipe({ overrides }))).rejects.toMatchObject({ where: 'recipe.overrides.0.symmetric' });
});

test('the number of threads does not matter', async () => {
  const w = normal(67, k, 6);
  const [one, two, three] = await Promise.all(
    [1, 2, 3].map((threads) => quantized(w, k, recipe(), undefined, { threads })),
  );
  expect(two).toEqual(one);
  expect(three).toEqual(one);
});
