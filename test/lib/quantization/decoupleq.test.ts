import { expect, test } from 'vitest';
import { quantize } from '../../../lib/quantization/index.js';
import { Tensor } from '../../../lib/tensor/index.js';
import { energy, gram, normal, quantized } from './matrices.js';

const [m, k] = [18, 96];
const recipe = (options: Record<string, unknown> = {}) => ({
  method: 'decoupleq',
  bits: 2,
  groupSize: 32,
  damping: 1e-9,
  ...options,
});
const kinds = (warnings: readonly { kind: string }[]) => warnings.map(({ kind }) => kind);

/** What quantization changed, in the metric of h, of every row. */
function errors(w: Float32Array, weights: Float32Array, h: Float64Array): number[] {
  const columns = Math.sqrt(h.length);
  const difference = weights.map((v, i) => v - w[i]!);
  return Array.from({ length: w.length / columns }, (_, row) =>
    energy(difference.subarray(row * columns, (row + 1) * columns), columns, h),
  );
}

const energyShare = (w: Float32Array, weights: Float32Array, h: Float64Array) =>
  energy(
    weights.map((v, i) => v - w[i]!),
    k,
    h,
  ) / energy(w, k, h);

test('more iterations never make any row’s error larger, and the first ones make it smaller', async () => {
  for (const [groupSize, symmetric] of [
    [32, false],
    [16, true],
    [64, false],
    [-1, false],
  ] as const) {
    const w = normal(m, k, 1);
    const h = gram(k, 300, 2);
    let before: number[] = [];
    const totals: number[] = [];
    for (const iterations of [1, 2, 3, 4, 8]) {
      const { weights } = await quantized(w, k, recipe({ iterations, groupSize, symmetric }), h);
      const now = errors(w, weights, h);
      for (const [row, error] of before.entries()) expect(now[row]).toBeLessThanOrEqual(error * (1 + 1e-5));
      before = now;
      totals.push(now.reduce((sum, error) => sum + error, 0));
    }
    expect(totals[1]).toBeLessThan(0.9 * totals[0]!);
    expect(totals.at(-1)).toBeLessThan(totals[1]!);
  }
});

test('one iteration is gptq, row by row, or round to nearest where that is better', async () => {
  const h = gram(k, 300, 4);
  for (const symmetric of [false, true])
    for (const actOrder of [false, true]) {
      const w = normal(m, k, 3);
      const same = { bits: 2, groupSize: 32, symmetric };
      const one = await quantized(w, k, { ...recipe({ iterations: 1, actOrder, damping: 0.01 }), ...same }, h);
      const gptq = await quantized(w, k, { method: 'gptq', actOrder, ...same }, h);
      const rtn = await quantized(w, k, { method: 'rtn', ...same });
      for (let row = 0; row < m; row++) {
        const [found, feedback, nearest] = [one, gptq, rtn].map(({ weights }) => weights.slice(row * k, (row + 1) * k));
        if (found!.some((v, i) => v !== nearest![i])) expect(found).toEqual(feedback);
      }
      const different = one.weights.filter((v, i) => v !== rtn.weights[i]).length;
      expect(different).toBeGreaterThan(m);
    }
});

test('rows where round to nearest is better than the pass take it', async () => {
  // In a row of few columns the last ones, that nothing makes good, are most of the error.
  const [rows, columns] = [400, 6];
  // Both signs in every row: zero codes are 1 or 2 then, and f16 holds the real offsets of gptq's grid exactly.
  const w = normal(rows, columns, 5).map((v, i) => [1.5, -1.5][i % columns] ?? v);
  const h = gram(columns, 20, 6);
  const options = { bits: 2, groupSize: -1, actOrder: false, damping: 1e-9 };
  const one = await quantized(w, columns, { method: 'decoupleq', iterations: 1, ...options }, h);
  const gptq = await quantized(w, columns, { method: 'gptq', ...options }, h);
  const rtn = await quantized(w, columns, { method: 'rtn', bits: 2, groupSize: -1 });
  const [found, feedback, nearest] = [one, gptq, rtn].map(({ weights }) => errors(w, weights, h));
  expect(nearest!.filter((error, row) => error < feedback![row]!).length).toBeGreaterThan(10);
  for (let row = 0; row < rows; row++)
    expect(found![row]).toBeLessThanOrEqual(Math.min(feedback![row]!, nearest![row]!) * (1 + 1e-4));
});

test('the error is far below gptq’s at two bits', async () => {
  for (const groupSize of [32, -1]) {
    const w = normal(64, k, 7);
    const h = gram(k, 300, 8);
    const { report } = await quantized(w, k, recipe({ groupSize, damping: 0.01 }), h);
    const gptq = await quantized(w, k, { method: 'gptq', bits: 2, groupSize }, h);
    expect(report.relativeError).toBeLessThan(0.7 * gptq.report.relativeError);
    expect(report.warnings).toEqual([]);
    expect(report.damping).toBe(0.01);
  }
});

test('the descent chooses codes that are better than nearest ones, and never worse in a row', async () => {
  const w = normal(m, k, 17);
  const h = gram(k, 300, 18);
  const descent = { rounding: 'gradient', steps: 60, innerSteps: 2 };
  const one = await quantized(w, k, recipe({ ...descent, iterations: 1, damping: 0.01 }), h);
  const rtn = await quantized(w, k, { method: 'rtn', bits: 2, groupSize: 32 });
  expect(one.report.relativeError).toBeLessThan(0.7 * energyShare(w, rtn.weights, h));
  const more = await quantized(w, k, recipe({ ...descent, iterations: 3, damping: 0.01 }), h);
  expect(more.report.relativeError).toBeLessThan(one.report.relativeError);
  for (const threads of [1, 3])
    expect(await quantized(w, k, recipe({ ...descent, iterations: 3, damping: 0.01 }), h, { threads })).toEqual(more);
});

test('scales and real offsets are stored, scales alone with a symmetric grid', async () => {
  using hessian = Tensor.copyOf(gram(k, 300, 9), [k, k]);
  for (const symmetric of [false, true]) {
    using q = await quantize(Tensor.from(normal(m, k, 10), [m, k]), recipe({ symmetric }), { statistics: { hessian } });
    expect(q.layout).toMatchObject({ kind: 'uniform', offsets: symmetric ? 'none' : 'real' });
    expect(q.scales.dtype).toBe('f16');
  }
});

test('neither the unit of the Hessian nor the number of threads matters', async () => {
  const w = normal(67, 80, 11);
  const h = gram(80, 300, 12);
  const plain = await quantized(w, 80, recipe(), h, { threads: 1 });
  for (const threads of [2, 3]) expect(await quantized(w, 80, recipe(), h, { threads })).toEqual(plain);
  for (const factor of [2 ** -40, 2 ** 33]) {
    const unit = h.map((v) => v * factor);
    expect((await quantized(w, 80, recipe(), unit)).bytes).toEqual(plain.bytes);
  }
});

test('zeros and constants are hit', async () => {
  const h = gram(k, 300, 13);
  for (const value of [0, -0.375]) {
    const { weights } = await quantized(new Float32Array(m * k).fill(value), k, recipe(), h);
    expect(weights.every((v) => v === value)).toBe(true);
  }
});

test('dead columns, silent inputs and Hessians that do not factor are on record, with numbers everywhere', async () => {
  const w = normal(m, k, 14);
  const dead = gram(k, 300, 15);
  for (let i = 0; i < k; i++)
    for (let column = 32; column < 64; column++) dead[column * k + i] = dead[i * k + column] = 0;
  const first = await quantized(w, k, recipe({ damping: 0.01 }), dead);
  expect(kinds(first.report.warnings)).toEqual(['deadColumns']);
  expect(first.weights.every(Number.isFinite)).toBe(true);
  for (let row = 0; row < m; row++)
    for (let column = 32; column < 64; column++) expect(first.weights[row * k + column]).toBe(0);

  const silent = await quantized(w, k, recipe(), new Float64Array(k * k));
  expect(kinds(silent.report.warnings)).toEqual(['keptRoundToNearest']);
  const rtn = await quantized(w, k, { method: 'rtn', bits: 2, groupSize: 32 });
  expect(silent.weights).toEqual(rtn.weights);

  const flat = await quantized(w, k, recipe({ damping: 0 }), new Float64Array(k * k).fill(1));
  expect(kinds(flat.report.warnings)).toContain('dampingRaised');
  expect(flat.weights.every(Number.isFinite)).toBe(true);
});

test('options that make no sense are refused', async () => {
  const w = normal(m, k, 16);
  for (const options of [
    { iterations: 0 },
    { iterations: 1.5 },
    { damping: 2 },
    { trueSequential: 1 },
    { rounding: 'up' },
    { rate: 0 },
    { step: 1 },
  ])
    await expect(quantized(w, k, recipe(options))).rejects.toMatchObject({ code: 'LUTRA_E_OPTION' });
  await expect(quantized(w, k, recipe())).rejects.toMatchObject({ code: 'LUTRA_E_OPTION', where: 'quantize.w' });
});
