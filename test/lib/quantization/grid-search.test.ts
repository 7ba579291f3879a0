import { describe, expect, test } from 'vitest';
import { dequantize } from '../../../lib/ops/index.js';
import { type LayerReport, quantize } from '../../../lib/quantization/index.js';
import { Tensor } from '../../../lib/tensor/index.js';
import { energy, gram, normal, quantized } from './matrices.js';

const [m, k] = [18, 96];
const rtn = (options: Record<string, unknown> = {}) => ({ method: 'rtn', bits: 3, groupSize: 32, ...options });
const distance = (a: Float32Array, b: Float32Array, h: Float64Array) =>
  energy(
    a.map((v, i) => v - b[i]!),
    k,
    h,
  );

test('a row’s grid from the whole Hessian is never worse in its metric than the full range, row by row', async () => {
  for (const bits of [2, 3, 4])
    for (const symmetric of [false, true]) {
      const w = normal(m, k, bits);
      const h = gram(k, 300, 10);
      const recipe = { bits, groupSize: -1, symmetric };
      const plain = await quantized(w, k, rtn(recipe));
      const { weights, report } = await quantized(w, k, rtn({ ...recipe, clipSearch: 'hessian' }), h);
      for (let row = 0; row < m; row++) {
        const of = (x: Float32Array) => x.subarray(row * k, (row + 1) * k);
        const [found, before] = [distance(of(weights), of(w), h), distance(of(plain.weights), of(w), h)];
        expect(found).toBeLessThanOrEqual(before * (1 + 1e-4));
      }
      const relative = distance(weights, w, h) / energy(w, k, h);
      expect(relative).toBeLessThan(0.9 * (distance(plain.weights, w, h) / energy(w, k, h)));
      expect(Math.abs(report.relativeError / relative - 1)).toBeLessThan(1e-3);
      expect(report).toMatchObject({ rtnError: report.relativeError, damping: null, warnings: [] });
    }
});

test('columns that no input reaches do not widen the range', async () => {
  const w = normal(m, 32, 11);
  for (let row = 0; row < m; row++) w[row * 32 + 5] = 40;
  const h = new Float64Array(32 * 32);
  for (let i = 0; i < 32; i++) h[i * 33] = i === 5 ? 0 : 1;
  const { weights } = await quantized(w, 32, rtn({ clipSearch: 'hessian', symmetric: true }), h);
  for (let i = 0; i < w.length; i++) if (i % 32 !== 5) expect(Math.abs(weights[i]! - w[i]!)).toBeLessThan(1);
});

const uses = [
  { method: 'rtn', clipSearch: 'hessian' },
  { method: 'gptq', clipSearch: 'hessian' },
  { method: 'leanquant' },
  { method: 'bcq', weighting: 'diagonal' },
  { method: 'bcq', weighting: 'hessian' },
  { method: 'bcq', errorFeedback: true },
];
describe.each(uses)('what a Hessian holds is on record: %o', (solver) => {
  const recipe = { bits: 3, groupSize: 32, ...solver };
  const w = normal(m, k, 50);
  const reportOf = async (h: Float64Array, tokens?: number) => {
    let found: LayerReport | undefined;
    const statistics = { hessian: Tensor.copyOf(h, [k, k]), tokens };
    using q = await quantize(Tensor.from(w, [m, k]), recipe, {
      statistics,
      onReport: (report) => {
        found = report;
      },
    });
    using weights = dequantize(q);
    return { ...found!, kinds: found!.warnings.map(({ kind }) => kind), weights: weights.read() };
  };

  test('dead columns and too few tokens', async () => {
    const h = gram(k, 300, 51);
    for (let i = 0; i < k; i++) for (const column of [3, 50]) h[column * k + i] = h[i * k + column] = 0;
    const { deadColumns, kinds, weights } = await reportOf(h, k - 3);
    expect(deadColumns).toBe(2);
    expect(kinds).toEqual(['deadColumns', 'fewTokens']);
    if (solver.method !== 'bcq')
      for (let row = 0; row < m; row++) expect([weights[row * k + 3], weights[row * k + 50]]).toEqual([0, 0]);
    expect((await reportOf(h, k - 2)).kinds).toEqual(['deadColumns']);
  });

  test('inputs that were never anything but zero leave round to nearest', async () => {
    const { deadColumns, kinds, weights } = await reportOf(new Float64Array(k * k));
    expect([deadColumns, kinds]).toEqual([k, ['keptRoundToNearest']]);
    const { method } = solver;
    const plain = await quantized(w, k, rtn({ method: method === 'bcq' ? 'bcq' : 'rtn' }));
    expect(weights).toEqual(plain.weights);
  });

  test('a negative diagonal is refused', async () => {
    const h = gram(k, 300, 52);
    h[7 * (k + 1)] = -1;
    await expect(reportOf(h)).rejects.toMatchObject({ code: 'LUTRA_E_NOT_POSITIVE_DEFINITE', found: -1 });
  });
});

test('gptq takes the same grids', async () => {
  const w = normal(m, k, 20);
  const h = gram(k, 300, 21);
  for (const symmetric of [false, true]) {
    const options = { clipSearch: 'hessian', symmetric };
    const [, ...grids] = (await quantized(w, k, rtn(options), h)).bytes;
    const [, ...gptq] = (await quantized(w, k, { ...rtn(options), method: 'gptq' }, h)).bytes;
    expect(gptq).toEqual(grids);
    expect(grids).not.toEqual((await quantized(w, k, rtn({ symmetric }))).bytes.slice(1));
  }
});

test('the number of threads does not matter', async () => {
  const w = normal(67, k, 30);
  const h = gram(k, 300, 31);
  const recipe = rtn({ clipSearch: 'hessian' });
  const [one, two, three] = await Promise.all([1, 2, 3].map((threads) => quantized(w, k, recipe, h, { threads })));
  expect(two).toEqual(one);
  expect(three).toEqual(one);
});

test('without a Hessian, with one that is none, or with another word the search is refused', async () => {
  const w = Tensor.from(normal(m, k, 40), [m, k]);
  const refused = (recipe: ReturnType<typeof rtn>, h?: Float64Array) =>
    expect(quantize(w, recipe, { where: 'layer.1', statistics: { hessian: h && Tensor.copyOf(h, [k, k]) } })).rejects;
  const missing = { code: 'LUTRA_E_OPTION', where: 'layer.1' };
  await refused(rtn({ clipSearch: 'hessian' })).toMatchObject(missing);
  const h = gram(k, 100, 41);
  h[2 * k + 9] = Number.NaN;
  const broken = { code: 'LUTRA_E_NON_FINITE', found: 'NaN at index [2, 9]' };
  await refused(rtn({ clipSearch: 'hessian' }), h).toMatchObject(broken);
  const word = { code: 'LUTRA_E_OPTION', where: 'recipe.clipSearch' };
  await refused(rtn({ clipSearch: 'mse' })).toMatchObject(word);
});
