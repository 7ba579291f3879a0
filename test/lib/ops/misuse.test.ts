import { beforeAll, describe, expect, it } from 'vitest';
import { lutGemm, lutGemmAsync, lutGemmErrorBound, prepareActivations } from '../../../lib/ops/index.js';
import { packPlanes, quantize } from '../../../lib/quantization/index.js';
import { QuantizedTensor, Tensor } from '../../../lib/tensor/index.js';

let q: QuantizedTensor;
beforeAll(async () => {
  using w = Tensor.copyOf(
    Float32Array.from({ length: 16 * 64 }, (_, i) => Math.sin(i)),
    [16, 64],
  );
  q = await quantize(w, { method: 'rtn', bits: 3, groupSize: 32 });
});

/** The calls as JavaScript sees them, without types. */
type Call = (x: unknown, q: unknown, options?: unknown) => unknown;
const calls: [string, Call][] = [
  ['lutGemm', lutGemm as Call],
  ['lutGemmAsync', lutGemmAsync as Call],
  ['lutGemmErrorBound', lutGemmErrorBound as Call],
  ['prepareActivations', (x, weight, options) => prepareActivations(x as never, [weight] as never, options as never)],
];
const failure = async (call: () => unknown): Promise<unknown> => {
  try {
    await call();
  } catch (error) {
    return error;
  }
  return null;
};

describe.each(calls)('%s', (name, call) => {
  const x = () => Tensor.from(new Float32Array(64), [1, 64]);

  it('names itself and the unknown option', async () => {
    expect(await failure(() => call(x(), q, { batchinvariant: true }))).toMatchObject({
      code: 'LUTRA_E_OPTION',
      where: name,
      found: "'batchinvariant'",
      expected: expect.stringContaining('batchInvariant'),
    });
  });

  it.each([null, 'fast', 3])('refuses %j in place of options', async (options) => {
    const error = { code: 'LUTRA_E_OPTION', where: `${name}.options`, found: String(options) };
    expect(await failure(() => call(x(), q, options))).toMatchObject(error);
  });

  it('says what it got in place of a tensor', async () => {
    const expected = { code: 'LUTRA_E_DTYPE', where: `${name}.x`, found: 'Float32Array' };
    expect(await failure(() => call(new Float32Array(64), q))).toMatchObject(expected);
    expect(await failure(() => call(x(), null))).toMatchObject({ code: 'LUTRA_E_DTYPE', found: 'null' });
  });

  it('names the element type that it found', async () => {
    const expected = { code: 'LUTRA_E_DTYPE', where: `${name}.x`, found: 'f64', expected: 'f32' };
    const wide = Tensor.copyOf(new Float64Array(64), [1, 64]);
    expect(await failure(() => call(wide, q))).toMatchObject(expected);
  });

  it('names itself where a shape is wrong', async () => {
    const error = await failure(() => call(Tensor.zeros('f32', [1, 63]), q));
    expect(error).toMatchObject({ code: 'LUTRA_E_SHAPE', where: expect.stringContaining(name) });
  });
});

it('a result of another element type is named', async () => {
  const [x, out] = [Tensor.zeros('f32', [1, 64]), Tensor.zeros('f64', [1, 16])];
  for (const call of [lutGemm, lutGemmAsync])
    expect(await failure(() => call(x, q, { out }))).toMatchObject({
      code: 'LUTRA_E_DTYPE',
      where: `${call.name}.out`,
      found: 'f64',
    });
});

it('a signal that is none is refused', async () => {
  const error = await failure(() => lutGemmAsync(Tensor.zeros('f32', [1, 64]), q, { signal: {} as AbortSignal }));
  expect(error).toMatchObject({ code: 'LUTRA_E_OPTION', where: 'lutGemmAsync', found: 'object' });
});

it('a pair that is none is refused, and uses nothing up', async () => {
  for (const pair of [null, undefined, {}, { a: Tensor.zeros('f32', [1, 64]) }])
    expect(await failure(() => q.withSubBranch(pair as never))).toMatchObject({ code: 'LUTRA_E_DTYPE' });
  using y = lutGemm(Tensor.zeros('f32', [1, 64]), q);
  expect(y.shape).toEqual([1, 16]);
});

it('planes that are none are refused by what is missing', async () => {
  for (const planes of [null, undefined, {}])
    expect(await failure(() => packPlanes(planes as never))).toMatchObject({
      code: 'LUTRA_E_DTYPE',
      found: 'undefined',
    });
  const [binaryCodes, alphas] = [Tensor.zeros('u8', [4, 32]), Tensor.zeros('f32', [4, 2])];
  const flat = await failure(() => packPlanes({ binaryCodes, alphas, offsets: null, groupSize: 32 }));
  expect(flat).toMatchObject({ code: 'LUTRA_E_SHAPE', found: '[4,2]', expected: '[outFeatures, groups, bits]' });
});

it('a pair without fields for its scales is one without scales', () => {
  const f16 = (rows: number, cols: number) => Tensor.copyOf(new Uint16Array(rows * cols), [rows, cols], 'f16');
  const { layout, codes, scales, offsets } = q;
  const pair = { a: f16(2, 64), b: f16(16, 2) };
  const { subBranch } = new QuantizedTensor(layout, codes, scales, offsets, { subBranch: pair });
  expect(subBranch).toEqual({ ...pair, aScales: null, bScales: null });
});
