import { expect, test } from 'vitest';
import { nativeMemory } from '../../../lib/native/index.js';
import { dequantize, lutGemm } from '../../../lib/ops/index.js';
import { packPlanes, quantize, toPlanes } from '../../../lib/quantization/index.js';
import { codesBytes, QuantizedTensor, Tensor } from '../../../lib/tensor/index.js';
import { energy, gram, normal, quantized } from './matrices.js';

const [m, k] = [18, 96];
const recipe = (options: Record<string, unknown> = {}) => ({ method: 'bcq', bits: 3, groupSize: 32, ...options });
const weightsOf = (q: Parameters<typeof dequantize>[0]) => {
  using w = dequantize(q);
  return w.read() as Float32Array;
};
const distance = (a: Float32Array, b: Float32Array, h?: Float64Array) =>
  energy(
    a.map((v, i) => v - b[i]!),
    k,
    h,
  );

test('an alpha a bit and an offset are stored, no offset on a symmetric grid', async () => {
  const w = Tensor.from(normal(m, k, 1), [m, k]);
  for (const bits of [2, 3, 4]) {
    using plain = await quantize(w, recipe({ bits }));
    expect(plain.layout).toMatchObject({ kind: 'planes', offsets: 'real', bits });
    expect(plain.scales.elements).toBe(plain.offsets!.elements * bits);
    using centred = await quantize(w, recipe({ bits, symmetric: true }));
    expect(centred.layout).toMatchObject({ kind: 'planes', offsets: 'none' });
    expect(centred.offsets).toBeNull();
  }
});

test('the error never rises with rounds, and is the smaller of both starts', async () => {
  const w = normal(m, k, 2);
  for (const bits of [2, 3, 4])
    for (const symmetric of [false, true]) {
      let before = Number.POSITIVE_INFINITY;
      for (const rounds of [0, 1, 2, 15]) {
        const { report } = await quantized(w, k, recipe({ bits, symmetric, rounds, start: 'greedy' }));
        expect(report.relativeError).toBeLessThanOrEqual(before * (1 + 1e-6));
        before = report.relativeError;
      }
      const errors = await Promise.all(
        ['best', 'greedy', 'grid'].map(
          async (start) => (await quantized(w, k, recipe({ bits, symmetric, start }))).report.relativeError,
        ),
      );
      expect(errors[0]).toBeLessThanOrEqual(Math.min(errors[1]!, errors[2]!));
    }
});

test('it is closer to the weights than round to nearest, and every code is the nearest level', async () => {
  for (const bits of [2, 3, 4]) {
    const w = normal(m, k, 3);
    const { weights } = await quantized(w, k, recipe({ bits }));
    const rtn = await quantized(w, k, { method: 'rtn', bits, groupSize: 32 });
    expect(distance(weights, w)).toBeLessThan(0.9 * distance(rtn.weights, w));
    for (let begin = 0; begin < w.length; begin += 32) {
      const levels = new Set(weights.subarray(begin, begin + 32));
      for (let i = begin; i < begin + 32; i++)
        for (const level of levels) expect(Math.abs(weights[i]! - w[i]!)).toBeLessThanOrEqual(Math.abs(level - w[i]!));
    }
  }
});

test('weights on a uniform grid are reproduced', async () => {
  for (const bits of [2, 3, 4]) {
    const codes = normal(m, k, 4).map((v) => Math.max(0, Math.min(2 ** bits - 1, Math.round(v + 2 ** bits / 2))));
    // Both ends of the grid are in every group.
    const w = codes.map((code, i) => 0.125 * ((i % 32 === 0 ? 0 : i % 32 === 1 ? 2 ** bits - 1 : code) - 1));
    expect((await quantized(w, k, recipe({ bits }))).weights).toEqual(w);
  }
});

test('uniform weights become planes that are the same weights, and give the same products', async () => {
  const w = Tensor.from(normal(m, k, 5), [m, k]);
  const x = Tensor.from(normal(3, k, 6), [3, k]);
  for (const bits of [2, 3, 4])
    for (const groupSize of [16, 32, 64, -1])
      for (const symmetric of [false, true]) {
        using uniform = await quantize(w, { method: 'rtn', bits, groupSize, symmetric });
        using planes = await toPlanes(uniform);
        expect(planes.layout).toMatchObject({ kind: 'planes', offsets: 'real', bits, groupSize });
        expect(weightsOf(planes)).toEqual(weightsOf(uniform));
        const [a, b] = [uniform, planes].map((q) => lutGemm(x, q, { mode: 'exact' }).read() as Float32Array);
        expect(
          energy(
            a!.map((v, i) => v - b![i]!),
            m,
          ),
        ).toBeLessThan(1e-11 * energy(a!, m));
        using again = await toPlanes(planes);
        expect(weightsOf(again)).toEqual(weightsOf(uniform));
      }
});

test('scales whose alphas f16 cannot hold become f32 alphas', async () => {
  using w = Tensor.copyOf(normal(4, 32, 7, 50_000), [4, 32]);
  using uniform = await quantize(w, { method: 'rtn', bits: 3, groupSize: 32 });
  expect(uniform.scaleDtype).toBe('f16');
  using planes = await toPlanes(uniform);
  expect(planes.scaleDtype).toBe('f32');
  expect(weightsOf(planes)).toEqual(weightsOf(uniform));
});

test('scales whose planes f32 cannot hold are refused, others of the same type are not', async () => {
  const layout = { rows: 16, cols: 32, bits: 4, groupSize: 32, kind: 'uniform', offsets: 'zeroCode' } as const;
  const bits = (value: number) => new Uint32Array(Float32Array.of(value).buffer)[0]! >>> 16;
  const made = (dtype: 'f32' | 'bf16', scale: number, zero: number) => {
    const codes = Tensor.copyOf(Uint8Array.from({ length: codesBytes(layout) }, (_, i) => i * 37));
    const scales = dtype === 'f32' ? new Float32Array(16).fill(1) : new Uint16Array(16).fill(bits(1));
    scales[5] = dtype === 'f32' ? scale : bits(scale);
    const zeros = new Uint8Array(16).fill(1);
    zeros[5] = zero;
    return new QuantizedTensor(layout, codes, Tensor.copyOf(scales, [16], dtype), Tensor.copyOf(zeros));
  };
  const odd = 1 + 2 ** -23;
  for (const [dtype, scale, zero] of [
    ['f32', odd, 3],
    ['f32', -odd, 15],
    ['f32', 2 ** 125, 1],
    ['bf16', 2 ** 125, 1],
  ] as const) {
    using q = made(dtype, scale, zero);
    const held = nativeMemory();
    const refusal = { code: 'LUTRA_E_DTYPE', where: 'toPlanes', found: expect.stringContaining('group 5') };
    await expect(toPlanes(q)).rejects.toMatchObject(refusal);
    expect(nativeMemory()).toBe(held);
  }
  for (const [dtype, scale, zero] of [
    ['f32', odd, 8],
    ['f32', 1 + 2 ** -20, 15],
    ['f32', -odd, 1],
    ['bf16', 2 ** 124, 15],
  ] as const) {
    using q = made(dtype, scale, zero);
    using planes = await toPlanes(q);
    expect(weightsOf(planes)).toEqual(weightsOf(q));
  }
  const tensor = Tensor.zeros('f32', [2, 32]) as unknown as QuantizedTensor;
  await expect(toPlanes(tensor)).rejects.toMatchObject({ code: 'LUTRA_E_DTYPE', where: 'toPlanes.q' });
});

test('codes, alphas and offsets from elsewhere are packed as they are', async () => {
  const codes = new Uint8Array(2 * 40).map((_, i) => (i * 7) % 4);
  const alphas = Float32Array.from({ length: 2 * 2 * 2 }, (_, i) => 0.1 * (i + 1));
  const offsets = Float32Array.from({ length: 4 }, (_, i) => i - 2);
  const planes = {
    binaryCodes: Tensor.from(codes, [2, 40]),
    alphas: Tensor.from(alphas, [2, 2, 2]),
    offsets: Tensor.from(offsets, [2, 2]),
    groupSize: 32,
  };
  const expected = (i: number, offset: (at: number) => number) => {
    const at = Math.floor(i / 40) * 2 + Math.floor((i % 40) / 32);
    return Math.fround((codes[i]! & 1 ? alphas[2 * at]! : 0) + (codes[i]! & 2 ? alphas[2 * at + 1]! : 0) + offset(at));
  };
  using q = await packPlanes(planes);
  for (const [i, v] of weightsOf(q).entries()) expect(v).toBe(expected(i, (at) => offsets[at]!));
  using centred = await packPlanes({ ...planes, offsets: null });
  for (const [i, v] of weightsOf(centred).entries())
    expect(v).toBe(expected(i, (at) => -(alphas[2 * at]! + alphas[2 * at + 1]!) / 2));
  const refused = (change: object) => expect(packPlanes({ ...planes, ...change })).rejects;
  await refused({ binaryCodes: Tensor.zeros('f32', [2, 40]) }).toMatchObject({ code: 'LUTRA_E_DTYPE' });
  await refused({ binaryCodes: codes }).toMatchObject({ code: 'LUTRA_E_DTYPE', where: 'packPlanes' });
  await refused({
    binaryCodes: Tensor.from(
      codes.map((c) => c + 1),
      [2, 40],
    ),
  }).toMatchObject({ code: 'LUTRA_E_OPTION' });
  await refused({ groupSize: 16 }).toMatchObject({ code: 'LUTRA_E_SHAPE' });
  await refused({ groupSize: 20 }).toMatchObject({ code: 'LUTRA_E_GROUP_SIZE' });
  await refused({ alphas: Tensor.zeros('f32', [2, 2, 5]) }).toMatchObject({ code: 'LUTRA_E_BITS' });
  await refused({ offsets: Tensor.zeros('f32', [2, 3]) }).toMatchObject({ code: 'LUTRA_E_SHAPE' });
  const broken = alphas.map((v, i) => (i === 3 ? Number.NaN : v));
  await refused({ alphas: Tensor.from(broken, [2, 2, 2]) }).toMatchObject({ code: 'LUTRA_E_NON_FINITE' });
});

test('every use of the Hessian makes the error in its metric smaller', async () => {
  let [plain, fed, whole] = [0, 0, 0];
  for (let seed = 0; seed < 6; seed++) {
    const w = normal(m, k, 30 + seed);
    const h = gram(k, 300, 100 * seed);
    const error = async (options: Record<string, unknown>) => {
      const { weights, report } = await quantized(w, k, recipe(options), h);
      const relative = distance(weights, w, h) / energy(w, k, h);
      // Without a use of the Hessian the report is in the plain metric.
      if (Object.keys(options).length) expect(Math.abs(report.relativeError / relative - 1)).toBeLessThan(1e-3);
      return relative;
    };
    const none = await error({});
    const feedback = await error({ errorFeedback: true });
    const both = await error({ errorFeedback: true, weighting: 'hessian' });
    expect(feedback).toBeLessThan(none);
    expect(both).toBeLessThan(none);
    expect(await error({ weighting: 'hessian' })).toBeLessThan(await error({ weighting: 'diagonal' }));
    plain += none;
    fed += feedback;
    whole += both;
  }
  expect(whole).toBeLessThan(fed);
  expect(whole).toBeLessThan(0.5 * plain);
});

test('with inputs that are not correlated, error feedback gives the codes of nearest levels', async () => {
  const w = normal(m, k, 40);
  const h = new Float64Array(k * k);
  for (let i = 0; i < k; i++) h[i * (k + 1)] = 3;
  const plain = await quantized(w, k, recipe());
  for (const options of [
    { errorFeedback: true },
    { weighting: 'diagonal' },
    { errorFeedback: true, weighting: 'diagonal' },
  ])
    expect((await quantized(w, k, recipe(options), h)).bytes).toEqual(plain.bytes);
});

test('weighting by the diagonal alone makes the error in its metric smaller, and factors nothing', async () => {
  const h = new Float64Array(k * k);
  for (let i = 0; i < k; i++) h[i * (k + 1)] = 1 + (i % 4) ** 4;
  for (const bits of [2, 3])
    for (const symmetric of [false, true]) {
      const w = normal(m, k, 45 + bits);
      const none = await quantized(w, k, recipe({ bits, symmetric }));
      const { weights, report } = await quantized(w, k, recipe({ bits, symmetric, weighting: 'diagonal' }), h);
      expect(distance(weights, w, h)).toBeLessThan(0.9 * distance(none.weights, w, h));
      expect(report).toMatchObject({ damping: null, deadColumns: 0, warnings: [] });
    }
  // No damping makes this one factor.
  const indefinite = h.slice();
  indefinite[1] = indefinite[k] = 1e6;
  const w = normal(m, k, 49);
  const options = recipe({ weighting: 'diagonal' });
  const { bytes, report } = await quantized(w, k, options, indefinite);
  expect(report.damping).toBeNull();
  // What error such a Hessian finds, and whose is the smaller, is another matter.
  expect(report.warnings.filter(({ kind }) => kind !== 'keptRoundToNearest')).toEqual([]);
  // Where error feedback needs the factor, its failure is on record and leaves the weighting as it is.
  const failed = await quantized(w, k, recipe({ weighting: 'diagonal', errorFeedback: true }), indefinite);
  expect(failed.bytes).toEqual(bytes);
  expect(failed.report.damping).toBeNull();
  expect(failed.report.warnings.map(({ message }) => message).join()).toMatch(/no damping up to/);
});

test('dead columns become zero levels’ nearest, and a hopeless Hessian is on record', async () => {
  const w = normal(m, k, 50);
  const h = gram(k, 300, 51);
  for (let i = 0; i < k; i++) h[5 * k + i] = h[i * k + 5] = 0;
  const options = { errorFeedback: true, weighting: 'hessian' };
  const { report } = await quantized(w, k, recipe(options), h);
  expect(report.deadColumns).toBe(1);
  expect(report.warnings.map(({ kind }) => kind)).toContain('deadColumns');
  const silent = await quantized(w, k, recipe(options), new Float64Array(k * k));
  expect(silent.report.warnings.at(-1)!.kind).toBe('keptRoundToNearest');
  expect(silent.bytes).toEqual((await quantized(w, k, recipe())).bytes);
});

test('the number of threads does not matter', async () => {
  const w = normal(67, k, 60);
  const h = gram(k, 300, 61);
  const options = recipe({ errorFeedback: true, weighting: 'hessian' });
  const [one, two, three] = await Promise.all([1, 2, 3].map((threads) => quantized(w, k, options, h, { threads })));
  expect(two).toEqual(one);
  expect(three).toEqual(one);
});
