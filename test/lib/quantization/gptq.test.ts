import { expect, test } from 'vitest';
import { type LayerReport, quantize } from '../../../lib/quantization/index.js';
import { Tensor } from '../../../lib/tensor/index.js';
import { energy, gram, normal, quantized } from './matrices.js';

const [m, k] = [18, 96];
const recipe = (options: Record<string, unknown> = {}) => ({ method: 'gptq', bits: 3, groupSize: 32, ...options });
const rtn = { method: 'rtn', bits: 3, groupSize: 32 };
const diagonal = (value: (column: number) => number) => {
  const h = new Float64Array(k * k);
  for (let i = 0; i < k; i++) h[i * (k + 1)] = value(i);
  return h;
};
const kinds = (warnings: readonly { kind: string }[]) => warnings.map(({ kind }) => kind);

test('inputs that are not correlated give the codes of round to nearest', async () => {
  const w = normal(m, k, 1);
  const rounded = await quantized(w, k, rtn);
  for (const h of [diagonal(() => 7), diagonal((i) => 1 + i)])
    for (const actOrder of [false, true]) {
      const { bytes, report } = await quantized(w, k, recipe({ actOrder }), h);
      expect(bytes).toEqual(rounded.bytes);
      expect(report.relativeError).toBe(report.rtnError);
    }
});

test('correlated inputs give a smaller error than round to nearest, the one that is reported', async () => {
  for (let seed = 0; seed < 6; seed++)
    for (const bits of [2, 3, 4]) {
      const w = normal(m, k, 10 + seed);
      const h = gram(k, 300, 100 * seed);
      const { weights, report } = await quantized(w, k, recipe({ bits }), h);
      const relative = (other: Float32Array) =>
        energy(
          other.map((v, i) => v - w[i]!),
          k,
          h,
        ) / energy(w, k, h);
      expect(Math.abs(report.relativeError / relative(weights) - 1)).toBeLessThan(1e-3);
      const rounded = await quantized(w, k, { ...rtn, bits });
      expect(Math.abs(report.rtnError / relative(rounded.weights) - 1)).toBeLessThan(1e-3);
      expect(report.relativeError).toBeLessThan(report.rtnError);
      expect(report.damping).toBe(0.01);
      expect(report.warnings).toEqual([]);
    }
});

test('the unit of the Hessian does not matter', async () => {
  const w = normal(m, k, 20);
  const h = gram(k, 300, 21);
  const plain = await quantized(w, k, recipe(), h);
  for (const factor of [2 ** -40, 2 ** 33])
    expect(
      (
        await quantized(
          w,
          k,
          recipe(),
          h.map((v) => v * factor),
        )
      ).bytes,
    ).toEqual(plain.bytes);
});

test('with act-order, the order of the columns does not matter', async () => {
  const w = normal(m, k, 30);
  const h = gram(k, 300, 31);
  const order = Array.from({ length: k }, (_, j) => (j * 35 + 4) % k);
  const moved = Float32Array.from(w, (_, at) => w[Math.floor(at / k) * k + order[at % k]!]!);
  const movedH = Float64Array.from(h, (_, at) => h[order[Math.floor(at / k)]! * k + order[at % k]!]!);
  const rows = recipe({ groupSize: -1 });
  const plain = await quantized(w, k, rows, h);
  const other = await quantized(moved, k, rows, movedH);
  for (let row = 0; row < m; row++)
    for (let j = 0; j < k; j++) expect(other.weights[row * k + j]).toBe(plain.weights[row * k + order[j]!]);
});

test('dead columns become zero, are counted, and leave the others alone', async () => {
  const w = normal(m, k, 40);
  const h = gram(k, 300, 41);
  const dead = [3, 50];
  for (const column of dead)
    for (let i = 0; i < k; i++) {
      h[column * k + i] = 0;
      h[i * k + column] = 0;
    }
  for (const actOrder of [false, true]) {
    const { weights, report } = await quantized(w, k, recipe({ actOrder }), h);
    expect(report.deadColumns).toBe(2);
    expect(kinds(report.warnings)).toEqual(['deadColumns']);
    for (let row = 0; row < m; row++) for (const column of dead) expect(weights[row * k + column]).toBe(0);
    const without = w.map((v, at) => (dead.includes(at % k) ? 0 : v));
    expect((await quantized(without, k, recipe({ actOrder }), h)).weights).toEqual(weights);
    expect(report.relativeError).toBeLessThan(report.rtnError);
  }
});

test('fewer tokens than live columns are on record', async () => {
  const w = Tensor.from(normal(m, k, 45), [m, k]);
  const h = gram(k, 300, 46);
  for (let i = 0; i < k; i++) h[i] = h[i * k] = 0;
  const hessian = Tensor.copyOf(h, [k, k]);
  const kindsWith = async (tokens: number | undefined) => {
    let found: string[] = [];
    const onReport = ({ warnings }: LayerReport) => {
      found = kinds(warnings);
    };
    using _ = await quantize(w, recipe(), { statistics: { hessian, tokens }, onReport });
    return found;
  };
  expect(await kindsWith(k - 2)).toEqual(['deadColumns', 'fewTokens']);
  for (const enough of [k - 1, k, undefined]) expect(await kindsWith(enough)).toEqual(['deadColumns']);
  for (const tokens of [0, -1, 1.5, Number.NaN])
    await expect(kindsWith(tokens)).rejects.toMatchObject({ code: 'LUTRA_E_OPTION', where: 'statistics.tokens' });
});

test('damping is raised until the Hessian factors, every step on record', async () => {
  const w = normal(m, k, 50);
  // A pair of columns whose correlation is more than whole: eigenvalues 1 + 1.5 and 1 - 1.5.
  const h = diagonal(() => 1);
  h[1] = h[k] = 1.5;
  const { report } = await quantized(w, k, recipe(), h);
  expect(report.damping).toBe(1);
  expect(kinds(report.warnings).slice(0, 2)).toEqual(['dampingRaised', 'dampingRaised']);
  expect(report.relativeError).toBeLessThanOrEqual(report.rtnError);
});

test('a Hessian of inputs near overflow is refused by its layer, with what is too large', async () => {
  const h = diagonal(() => 1e22);
  await expect(quantized(normal(m, k, 50), k, recipe(), h)).rejects.toMatchObject({
    ...{ code: 'LUTRA_E_NON_FINITE', found: expect.any(Number), hint: expect.stringContaining('Look at the weights') },
  });
});

test('a singular Hessian without damping is damped, on record', async () => {
  const h = new Float64Array(k * k).fill(1);
  const { report } = await quantized(normal(m, k, 51), k, recipe({ damping: 0 }), h);
  expect(report.damping).toBeGreaterThan(0);
  expect(kinds(report.warnings)).toContain('dampingRaised');
});

test('where no damping helps, or every input was zero, weights are rounded to nearest, on record', async () => {
  const w = normal(m, k, 52);
  const indefinite = diagonal(() => 1);
  indefinite[1] = indefinite[k] = 1000;
  const rounded = await quantized(w, k, rtn);
  for (const h of [indefinite, new Float64Array(k * k)]) {
    const { bytes, report } = await quantized(w, k, recipe(), h);
    expect(bytes).toEqual(rounded.bytes);
    expect(report.damping).toBeNull();
    expect(kinds(report.warnings).at(-1)).toBe('keptRoundToNearest');
  }
});

const dynamic = { actOrder: false, staticGroups: false };

test('with one group a row, dynamic groups are static ones', async () => {
  const w = normal(m, k, 53);
  const h = gram(k, 300, 54);
  const rows = { groupSize: -1, actOrder: false };
  const plain = await quantized(w, k, recipe(rows), h);
  expect(await quantized(w, k, recipe({ ...rows, ...dynamic }), h)).toEqual(plain);
});

test('dynamic groups fit their grids to what their weights have become', async () => {
  const w = normal(67, k, 55);
  const h = gram(k, 300, 56);
  const plain = await quantized(w, k, recipe({ actOrder: false }), h);
  for (const clipSearch of [false, true]) {
    const found = await quantized(w, k, recipe({ ...dynamic, clipSearch }), h, { threads: 1 });
    expect(found.bytes).not.toEqual(plain.bytes);
    expect(found.report.relativeError).toBeLessThan(found.report.rtnError);
    expect(found.report.warnings).toEqual([]);
    expect(await quantized(w, k, recipe({ ...dynamic, clipSearch }), h, { threads: 3 })).toEqual(found);
  }
  // Without a factor there is no pass, and the grid is that of the weights.
  const silent = await quantized(w, k, recipe(dynamic), new Float64Array(k * k));
  expect(silent.bytes).toEqual((await quantized(w, k, rtn)).bytes);
});

test('dynamic groups take no act-order and no search in the metric of the Hessian', async () => {
  const w = normal(m, k, 57);
  const refused = (options: object) => expect(quantized(w, k, recipe({ staticGroups: false, ...options }))).rejects;
  await refused({}).toMatchObject({ code: 'LUTRA_E_OPTION', where: 'recipe.actOrder' });
  await refused({ actOrder: false, clipSearch: 'hessian' }).toMatchObject({ where: 'recipe.clipSearch' });
});

test('the number of threads does not matter', async () => {
  const w = normal(67, k, 60);
  const h = gram(k, 300, 61);
  const [one, two, three] = await Promise.all([1, 2, 3].map((threads) => quantized(w, k, recipe(), h, { threads })));
  expect(two).toEqual(one);
  expect(three).toEqual(one);
});

test('a Hessian that is missing, misshapen or not of numbers is refused by name', async () => {
  const w = () => Tensor.from(normal(m, k, 70), [m, k]);
  const refused = (hessian?: Tensor) =>
    expect(quantize(w(), recipe(), { where: 'layer.1', statistics: { hessian } })).rejects;
  await refused().toMatchObject({ code: 'LUTRA_E_OPTION', where: 'layer.1' });
  await refused(Tensor.zeros('f64', [k, k - 1])).toMatchObject({ code: 'LUTRA_E_SHAPE', where: 'layer.1' });
  await refused(Tensor.zeros('f32', [k, k])).toMatchObject({ code: 'LUTRA_E_DTYPE', where: 'layer.1' });
  const h = gram(k, 100, 71);
  h[2 * k + 9] = Number.NaN;
  await refused(Tensor.copyOf(h, [k, k])).toMatchObject({ code: 'LUTRA_E_NON_FINITE', found: 'NaN at index [2, 9]' });
  await refused(
    Tensor.copyOf(
      diagonal((i) => i - 5),
      [k, k],
    ),
  ).toMatchObject({
    code: 'LUTRA_E_NOT_POSITIVE_DEFINITE',
    where: 'layer.1',
  });
});

test('an abort rejects with its reason, before and during the work', async () => {
  const reason = new Error('enough');
  const w = Tensor.from(normal(256, 512, 80), [256, 512]);
  const statistics = { hessian: Tensor.copyOf(gram(512, 64, 81), [512, 512]) };
  await expect(quantize(w, recipe(), { statistics, signal: AbortSignal.abort(reason) })).rejects.toBe(reason);
  const controller = new AbortController();
  const running = quantize(w, recipe(), { statistics, signal: controller.signal });
  queueMicrotask(() => controller.abort(reason));
  await expect(running).rejects.toBe(reason);
});

test('rows do not depend on each other, and many are measured as few are', async () => {
  const [m, k] = [1700, 48];
  const w = normal(m, k, 31, 0.02);
  const hessian = gram(k, 200, 32);
  const recipe = { method: 'gptq', bits: 3, groupSize: 32 };
  const whole = await quantized(w, k, recipe, hessian);
  const parts = [w.subarray(0, 700 * k), w.subarray(700 * k)];
  const weights: number[] = [];
  for (const part of parts) weights.push(...(await quantized(part.slice(), k, recipe, hessian)).weights);
  expect(whole.weights).toEqual(Float32Array.from(weights));
  const change = whole.weights.map((value, i) => value - w[i]!);
  const expected = energy(change, k, hessian) / energy(w, k, hessian);
  expect(whole.report.relativeError / expected).toBeCloseTo(1, 4);
});
