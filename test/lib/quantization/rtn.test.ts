import { expect, test } from 'vitest';
import { quantize } from '../../../lib/quantization/index.js';
import { Tensor } from '../../../lib/tensor/index.js';
import { energy, normal, quantized } from './matrices.js';

const [m, k] = [21, 160];

/** The largest step of a group's grid that its values can ask for, its scale rounded to 11 bits. */
function stepOf(group: Float32Array, bits: number, symmetric: boolean): number {
  const lo = Math.min(0, ...group);
  const hi = Math.max(0, ...group);
  const span = symmetric ? 2 * Math.max(-lo, hi) : hi - lo;
  return (span / (2 ** bits - 1)) * (1 + 2 ** -10);
}

test('no weight moves by more than half a step of its group, all widths and group sizes', async () => {
  const w = normal(m, k, 1);
  for (const bits of [2, 3, 4])
    for (const groupSize of [16, 32, 64, -1]) {
      const { weights } = await quantized(w, k, { method: 'rtn', bits, groupSize });
      const columns = groupSize === -1 ? k : groupSize;
      for (let row = 0; row < m; row++)
        for (let begin = 0; begin < k; begin += columns) {
          const [from, to] = [row * k + begin, row * k + Math.min(k, begin + columns)];
          const half = (stepOf(w.subarray(from, to), bits, false) / 2) * (1 + 2 ** -10 * 2 ** bits);
          for (let i = from; i < to; i++)
            expect(Math.abs(weights[i]! - w[i]!), `W${bits}g${groupSize} at ${i}`).toBeLessThanOrEqual(half);
        }
    }
});

test('a symmetric grid stores no offsets and stays within half a step', async () => {
  const w = normal(m, k, 2);
  for (const bits of [2, 3, 4]) {
    const { weights, bytes } = await quantized(w, k, { method: 'rtn', bits, groupSize: 32, symmetric: true });
    expect(bytes).toHaveLength(2);
    for (let row = 0; row < m; row++)
      for (let begin = 0; begin < k; begin += 32) {
        const from = row * k + begin;
        const half = stepOf(w.subarray(from, from + 32), bits, true) / 2;
        for (let i = from; i < from + 32; i++) expect(Math.abs(weights[i]! - w[i]!)).toBeLessThanOrEqual(half);
      }
  }
});

test('the reported error is the relative squared error, and more bits make it smaller', async () => {
  const w = normal(m, k, 3);
  let before = 1;
  for (const bits of [2, 3, 4]) {
    const { weights, report } = await quantized(w, k, { method: 'rtn', bits, groupSize: 32 });
    const expected =
      energy(
        weights.map((v, i) => v - w[i]!),
        k,
      ) / energy(w, k);
    expect(Math.abs(report.relativeError / expected - 1)).toBeLessThan(1e-5);
    expect(report).toMatchObject({ rtnError: report.relativeError, damping: null, deadColumns: 0, warnings: [] });
    expect(report.relativeError).toBeLessThan(before / 2);
    before = report.relativeError;
  }
});

test('clip search never loses by its own norm and gains on outliers', async () => {
  const w = normal(m, k, 4);
  for (let row = 0; row < m; row++) w[row * k + 7] = 6;
  const norm = (weights: Float32Array) => weights.reduce((sum, v, i) => sum + Math.abs(v - w[i]!) ** 2.4, 0);
  const recipe = { method: 'rtn', bits: 2, groupSize: -1 };
  const plain = await quantized(w, k, recipe);
  const clipped = await quantized(w, k, { ...recipe, clipSearch: true });
  expect(norm(clipped.weights)).toBeLessThan(norm(plain.weights));
});

test('quantizing twice changes nothing more', async () => {
  const recipe = { method: 'rtn', bits: 3, groupSize: 32 };
  const once = await quantized(normal(m, k, 5), k, recipe);
  const { report } = await quantized(once.weights, k, recipe);
  expect(report.relativeError).toBeLessThan(1e-6);
});

test('zeros stay zeros, and a matrix of one value is hit', async () => {
  const zeros = await quantized(new Float32Array(m * k), k, { method: 'rtn', bits: 2, groupSize: 16 });
  expect(zeros.weights.every((v) => v === 0)).toBe(true);
  expect(zeros.report).toMatchObject({ relativeError: 0, warnings: [] });
  const ones = await quantized(new Float32Array(m * k).fill(-0.375), k, { method: 'rtn', bits: 2, groupSize: 16 });
  expect(Math.max(...ones.weights.map((v) => Math.abs(v + 0.375)))).toBeLessThan(0.375 * 2 ** -10);
});

test('scales that f16 cannot hold are stored as bf16, on record', async () => {
  const plain = normal(m, k, 6);
  const recipe = { method: 'rtn', bits: 3, groupSize: 32 };
  const expected = await quantized(plain, k, recipe);
  expect(expected.report.scaleDtype).toBe('f16');
  for (const factor of [2 ** 24, 2 ** -30]) {
    const { report } = await quantized(
      plain.map((v) => v * factor),
      k,
      recipe,
    );
    expect(report.scaleDtype).toBe('bf16');
    expect(report.warnings.map(({ kind }) => kind)).toEqual(['scaleDtype']);
    expect(report.relativeError).toBeLessThan(expected.report.relativeError * 1.1);
  }
});

test('f16 and bf16 weights are taken for what they stand for', async () => {
  const bits = Uint16Array.from({ length: 4 * 32 }, (_, i) => 0x3c00 + (i % 7) * 64);
  const halves = Float32Array.from(bits, (b) => 1 + (b - 0x3c00) / 1024);
  const recipe = { method: 'rtn', bits: 4, groupSize: 32 };
  using q = await quantize(Tensor.from(bits, [4, 32], 'f16'), recipe);
  const { bytes } = await quantized(halves, 32, recipe);
  expect(new Uint8Array(q.codes.read().slice().buffer)).toEqual(bytes[0]);
});

test('a NaN or infinity is named with its place', async () => {
  for (const [value, dtype] of [
    [Number.NaN, 'NaN'],
    [Number.POSITIVE_INFINITY, 'Infinity'],
  ] as const) {
    const w = normal(m, k, 7);
    w[5 * k + 11] = value;
    const running = quantize(Tensor.from(w, [m, k]), { method: 'rtn', bits: 3, groupSize: 32 }, { where: 'layer.7' });
    await expect(running).rejects.toMatchObject({
      code: 'LUTRA_E_NON_FINITE',
      where: 'layer.7',
      found: `${dtype} at index [5, 11]`,
    });
  }
});

test('a NaN among halves is named too', async () => {
  const bits = new Uint16Array(3 * 32).fill(0x3c00);
  bits[2 * 32 + 1] = 0xfc00;
  const running = quantize(Tensor.from(bits, [3, 32], 'f16'), { method: 'rtn', bits: 3, groupSize: 32 });
  await expect(running).rejects.toMatchObject({ found: '-Infinity at index [2, 1]' });
});

test('operands that are no weight matrix are refused', async () => {
  const recipe = { method: 'rtn', bits: 3, groupSize: 32 };
  const refused = (w: Tensor) => expect(quantize(w, recipe)).rejects;
  await refused(Tensor.zeros('f32', [32])).toMatchObject({ code: 'LUTRA_E_SHAPE' });
  await refused(Tensor.zeros('f32', [0, 32])).toMatchObject({ code: 'LUTRA_E_SHAPE' });
  await refused(Tensor.zeros('i32', [2, 32])).toMatchObject({ code: 'LUTRA_E_DTYPE' });
  const gone = Tensor.zeros('f32', [2, 32]);
  gone.dispose();
  await refused(gone).toMatchObject({ code: 'LUTRA_E_DISPOSED' });
});

test('an override counts for the matrix that it names', async () => {
  const recipe = { method: 'rtn', bits: 2, groupSize: 32, overrides: [{ match: '*.special', bits: 4 }] };
  const w = normal(m, k, 8);
  const special = await quantized(w, k, recipe, undefined, { where: 'a.special' });
  const other = await quantized(w, k, recipe, undefined, { where: 'a.plain' });
  expect(special.bytes[0]!.length).toBe(2 * other.bytes[0]!.length);
});
