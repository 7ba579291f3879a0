import { expect, test } from 'vitest';
import { dequantize } from '../../../lib/ops/index.js';
import { type LayerReport, type QuantizeOptions, quantize, type Statistics } from '../../../lib/quantization/index.js';
import { Tensor } from '../../../lib/tensor/index.js';
import { gram, normal } from './matrices.js';

const [heads, d, k] = [3, 8, 64];
const m = heads * d;
const recipe = (options: Record<string, unknown> = {}) => ({
  method: 'boa',
  bits: 3,
  groupSize: 32,
  ...options,
});

/** Row Hessians f64 [heads, d, d], as those of keys: one strong direction a head. */
function rowGrams(seed: number, count = heads): Float64Array {
  const grams = new Float64Array(count * d * d);
  for (let head = 0; head < count; head++) grams.set(gram(d, 40, 1000 * seed + head), head * d * d);
  return grams;
}

interface Given {
  hessian: Float64Array;
  rowHessian?: Float64Array | undefined;
  tokens?: number;
}

interface Found {
  weights: Float32Array;
  codes: Uint8Array;
  scales: Uint16Array;
  report: LayerReport;
}

async function solved(
  w: Float32Array,
  options: Record<string, unknown>,
  given: Given,
  more: QuantizeOptions = {},
): Promise<Found> {
  const { hessian, rowHessian, tokens } = given;
  const count = hessian.length / k / k;
  const rows = w.length / k;
  const statistics: Statistics = {
    hessian: Tensor.from(hessian, count > 1 ? [count, k, k] : [k, k]),
    rowHessian: rowHessian && Tensor.from(rowHessian, [rows / d, d, d]),
    tokens,
  };
  let report: LayerReport | undefined;
  const onReport = (seen: LayerReport) => {
    report = seen;
  };
  using q = await quantize(Tensor.from(w, [rows, k]), recipe(options), { ...more, statistics, onReport });
  using back = dequantize(q);
  return {
    weights: back.read() as Float32Array,
    codes: q.codes.read().slice() as Uint8Array,
    scales: q.scales.read().slice() as Uint16Array,
    report: report!,
  };
}

/** The sum over heads of tr(G x H xᵀ) in fp64. */
function twoSided(x: ArrayLike<number>, h: Float64Array, g: Float64Array): number {
  let sum = 0;
  for (let head = 0; head < x.length / k / d; head++)
    for (let r = 0; r < d; r++)
      for (let i = 0; i < k; i++) {
        let weighed = 0;
        for (let p = 0; p < d; p++) weighed += g[(head * d + r) * d + p]! * x[(head * d + p) * k + i]!;
        let pulled = 0;
        for (let j = 0; j < k; j++) pulled += h[i * k + j]! * x[(head * d + r) * k + j]!;
        sum += weighed * pulled;
      }
  return sum;
}

const moved = (weights: Float32Array, w: Float32Array) => weights.map((v, i) => v - w[i]!);

test('without a row Hessian, and with rows that are not coupled, it is gptq', async () => {
  const hessian = gram(k, 200, 1);
  const w = normal(m, k, 2);
  const diagonal = new Float64Array(m * d);
  for (let row = 0; row < m; row++) diagonal[row * d + (row % d)] = 0.5 + ((row * 5) % 7);
  for (const [groupSize, actOrder] of [
    [32, true],
    [-1, false],
  ] as const) {
    const options = { groupSize, actOrder };
    const gptq = await solved(w, { method: 'gptq', clipSearch: 'hessian', ...options }, { hessian });
    const { report, ...plain } = gptq;
    expect(await solved(w, options, { hessian })).toEqual(gptq);
    for (const actOrderRow of [false, true])
      for (const rowBlock of [1, 3, 99])
        for (const adaptiveGrid of [false, true]) {
          const how = { ...options, rowBlock, actOrderRow, adaptiveGrid };
          expect(await solved(w, how, { hessian, rowHessian: diagonal })).toMatchObject(plain);
        }
    // A block of all rows of a head has no row left to answer for its errors.
    expect(await solved(w, { ...options, rowBlock: d }, { hessian, rowHessian: rowGrams(3) })).toMatchObject(plain);
  }
});

test('the two-sided error is smaller than gptq’s, and the one that is reported', async () => {
  let better = 0;
  let ratio = 0;
  const seeds = 20;
  for (let seed = 0; seed < seeds; seed++) {
    const w = normal(m, k, 10 + seed);
    const given = { hessian: gram(k, 200, 100 + seed), rowHessian: rowGrams(seed) };
    const error = (weights: Float32Array) => twoSided(moved(weights, w), given.hessian, given.rowHessian);
    const { weights, report } = await solved(w, {}, given);
    const gptq = await solved(w, { rowBlock: d }, given);
    better += Number(error(weights) < error(gptq.weights));
    ratio += error(weights) / error(gptq.weights) / seeds;
    const relative = error(weights) / twoSided(w, given.hessian, given.rowHessian);
    expect(report.relativeError / relative).toBeCloseTo(1, 3);
    expect(report.relativeError).toBeLessThan(report.rtnError);
  }
  expect(better).toBeGreaterThanOrEqual(0.8 * seeds);
  expect(ratio).toBeLessThan(0.95);
});

test('heads in another order, and rows of a head in another order, are solved alike', async () => {
  const w = normal(m, k, 5);
  const given = { hessian: gram(k, 200, 6), rowHessian: rowGrams(7) };
  const { weights } = await solved(w, {}, given);
  // Heads turn by one, rows of each head by three; with act-order the pass order is that of the diagonals.
  const from = Array.from({ length: m }, (_, row) => ((Math.floor(row / d) + 1) % heads) * d + ((row + 3) % d));
  const turned = new Float32Array(m * k);
  const rowHessian = new Float64Array(m * d);
  for (const [row, source] of from.entries()) {
    turned.set(w.subarray(source * k, (source + 1) * k), row * k);
    for (let p = 0; p < d; p++) rowHessian[row * d + p] = given.rowHessian[source * d + ((p + 3) % d)]!;
  }
  const found = await solved(turned, {}, { ...given, rowHessian });
  for (const [row, source] of from.entries())
    expect(found.weights.subarray(row * k, (row + 1) * k)).toEqual(weights.subarray(source * k, (source + 1) * k));
});

test('units of the Hessians and the number of threads do not matter', async () => {
  const w = normal(m, k, 8);
  const given = { hessian: gram(k, 200, 9), rowHessian: rowGrams(10) };
  const options = { rowBlock: 2, refineScales: true, rounding: { method: 'aespa', iterations: 20 } };
  const plain = await solved(w, options, given, { threads: 1 });
  for (const threads of [2, 5]) expect(await solved(w, options, given, { threads })).toEqual(plain);
  const scaled = {
    hessian: given.hessian.map((v) => v * 2 ** 20),
    rowHessian: given.rowHessian.map((v) => v / 2 ** 9),
  };
  const { report, ...same } = await solved(w, options, scaled);
  expect(plain).toMatchObject(same);
});

test('a Hessian a head solves each head as a matrix by itself', async () => {
  const w = normal(m, k, 11);
  const grams = Array.from({ length: heads }, (_, head) => gram(k, 200, 20 + head));
  const hessian = Float64Array.from(grams.flatMap((h) => [...h]));
  const rowHessian = rowGrams(12);
  for (const rows of [undefined, rowHessian]) {
    const all = await solved(w, {}, { hessian, rowHessian: rows, tokens: 50 });
    let error = 0;
    let whole = 0;
    for (let head = 0; head < heads; head++) {
      const part = w.slice(head * d * k, (head + 1) * d * k);
      const g = rows?.slice(head * d * d, (head + 1) * d * d);
      const alone = await solved(part, {}, { hessian: grams[head]!, rowHessian: g });
      expect(all.weights.slice(head * d * k, (head + 1) * d * k)).toEqual(alone.weights);
      const unit = g ?? Float64Array.from({ length: d * d }, (_, i) => Number(i % (d + 1) === 0));
      error += twoSided(moved(alone.weights, part), grams[head]!, unit);
      whole += twoSided(part, grams[head]!, unit);
    }
    expect(all.report.relativeError / (error / whole)).toBeCloseTo(1, 3);
    expect(all.report.warnings.map(({ kind }) => kind)).toEqual(['fewTokens']);
  }
});

test.each([
  ['refined scales', { refineScales: true }, 0.98],
  ['learned rounding', { rounding: { method: 'aespa', iterations: 300 } }, 0.98],
])('%s lower the two-sided error', async (_, options, most) => {
  let ratio = 0;
  for (const [seed, groupSize] of [-1, 32, -1, 32].entries()) {
    const w = normal(m, k, 30 + seed);
    const given = { hessian: gram(k, 200, 40 + seed), rowHessian: seed < 2 ? rowGrams(50 + seed) : undefined };
    const plain = await solved(w, { bits: 2, groupSize }, given);
    const more = await solved(w, { bits: 2, groupSize, ...options }, given);
    expect(more.report.relativeError).toBeLessThanOrEqual(plain.report.relativeError * (1 + 1e-6));
    ratio += more.report.relativeError / plain.report.relativeError / 4;
    if (!('rounding' in options)) continue;
    expect(more.scales).toEqual(plain.scales);
    const group = groupSize === -1 ? k : groupSize;
    const steps = more.weights.map((v, i) => v - plain.weights[i]!);
    for (let row = 0; row < m; row++)
      for (let begin = 0; begin < k; begin += group) {
        const at = row * k + begin;
        const sizes = new Set(steps.slice(at, at + group).map((step) => Math.abs(step)));
        // Nothing, or one step of the group's scale.
        expect(sizes.size).toBeLessThanOrEqual(2);
      }
  }
  expect(ratio).toBeLessThan(most);
});

test('dead columns, silent heads and Hessians that do not factor are dealt with, on record', async () => {
  const w = normal(m, k, 60);
  const hessian = gram(k, 200, 61);
  for (let i = 0; i < k; i++) hessian[7 * k + i] = hessian[i * k + 7] = 0;
  const rowHessian = rowGrams(62);
  rowHessian.fill(0, 0, d * d);
  const found = await solved(w, {}, { hessian, rowHessian });
  for (let row = 0; row < m; row++) expect(found.weights[row * k + 7]).toBe(0);
  expect(found.report).toMatchObject({ deadColumns: 1, warnings: [{ kind: 'deadColumns' }] });
  const gptq = await solved(w, { rowBlock: d }, { hessian, rowHessian });
  expect(found.weights.slice(0, d * k)).toEqual(gptq.weights.slice(0, d * k));
  // Far from positive definite: the head's rows are independent, as if it had no row Hessian.
  for (let i = 0; i < d; i++) for (let j = 0; j < d; j++) rowHessian[i * d + j] = i === j ? 1 : 100;
  const odd = await solved(w, {}, { hessian, rowHessian });
  const kinds = odd.report.warnings.map(({ kind }) => kind);
  expect(new Set(kinds)).toEqual(new Set(['deadColumns', 'dampingRaised', 'rowHessianUnused']));
  expect(odd.weights.slice(0, d * k)).toEqual(gptq.weights.slice(0, d * k));
  const silent = await solved(w, {}, { hessian: new Float64Array(k * k), rowHessian });
  expect(silent.report).toMatchObject({ damping: null, warnings: [{ kind: 'keptRoundToNearest' }] });
});

test('misuse is refused, and says what was expected', async () => {
  using w = Tensor.copyOf(normal(m, k, 70), [m, k]);
  using hessian = Tensor.copyOf(gram(k, 200, 71), [k, k]);
  const run = (statistics: Statistics, options = {}) => quantize(w, recipe(options), { statistics });
  const rows = (shape: number[], fill = 1) =>
    Tensor.copyOf(new Float64Array(shape.reduce((a, b) => a * b, 1)).fill(fill), shape);
  await expect(run({})).rejects.toMatchObject({ code: 'LUTRA_E_OPTION' });
  for (const shape of [[d, d], [heads, d, d - 1], [heads + 1, d, d], [m * d]])
    await expect(run({ hessian, rowHessian: rows(shape) })).rejects.toMatchObject({ code: 'LUTRA_E_SHAPE' });
  const single = Tensor.copyOf(new Float32Array(m * d), [heads, d, d]);
  await expect(run({ hessian, rowHessian: single })).rejects.toMatchObject({ code: 'LUTRA_E_DTYPE' });
  await expect(run({ hessian, rowHessian: {} as Tensor })).rejects.toMatchObject({ code: 'LUTRA_E_DTYPE' });
  const nan = rows([heads, d, d], Number.NaN);
  await expect(run({ hessian, rowHessian: nan })).rejects.toMatchObject({ code: 'LUTRA_E_NON_FINITE' });
  const negative = rows([heads, d, d], -1);
  await expect(run({ hessian, rowHessian: negative })).rejects.toMatchObject({
    code: 'LUTRA_E_NOT_POSITIVE_DEFINITE',
  });
  for (const count of [5, 2]) {
    const many = rows([count, k, k]);
    await expect(run({ hessian: many, rowHessian: rows([heads, d, d]) })).rejects.toMatchObject({
      code: 'LUTRA_E_SHAPE',
    });
  }
  for (const [option, value] of [
    ['rowBlock', 0],
    ['rowBlock', 1.5],
    ['damping', 2],
    ['rowDamping', -1],
    ['rounding', true],
    ['rounding', { method: 'aespa', iterations: -1 }],
    ['rounding', { method: 'aespa', steps: 5 }],
    ['blockV', true],
  ] as const)
    await expect(run({ hessian }, { [option]: value })).rejects.toMatchObject({ code: 'LUTRA_E_OPTION' });
});
