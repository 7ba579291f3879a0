import { describe, expect, it } from 'vitest';
import { dequantize, lutGemm, lutGemmAsync, lutGemmErrorBound, type Mode } from '../../../lib/ops/index.js';
import { quantize, toPlanes } from '../../../lib/quantization/index.js';
import { QuantizedTensor, type SubBranch, Tensor } from '../../../lib/tensor/index.js';

const [rows, cols] = [70, 100];

function wave(shape: [number, number], step: number, factor = 1): Tensor {
  const values = Float32Array.from({ length: shape[0] * shape[1] }, (_, i) => factor * Math.sin(i * step));
  return Tensor.copyOf(values, shape);
}

/** The same packed weights, with a pair of i8 whose rows have scales of their own. */
async function withPair(rank: number): Promise<{ plain: QuantizedTensor; q: QuantizedTensor; product: Float64Array }> {
  using w = wave([rows, cols], 0.37);
  const recipe = { method: 'rtn', bits: 3, groupSize: 32 } as const;
  const [plain, q] = [await quantize(w, recipe), await quantize(w, recipe)];
  const codes = (count: number, step: number) =>
    Int8Array.from({ length: count }, (_, i) => Math.round(127 * Math.sin(i * step)));
  const scales = (count: number) => Float32Array.from({ length: count }, (_, i) => 2 ** -9 * (1 + (i % 3)));
  const [a, b, aScales, bScales] = [codes(rank * cols, 0.7), codes(rows * rank, 0.3), scales(rank), scales(rows)];
  const subBranch: SubBranch = {
    a: Tensor.copyOf(a, [rank, cols]),
    b: Tensor.copyOf(b, [rows, rank]),
    aScales: Tensor.copyOf(aScales),
    bScales: Tensor.copyOf(bScales),
  };
  const product = new Float64Array(rows * cols);
  for (let m = 0; m < rows; m++)
    for (let k = 0; k < cols; k++)
      for (let j = 0; j < rank; j++)
        product[m * cols + k]! += bScales[m]! * b[m * rank + j]! * aScales[j]! * a[j * cols + k]!;
  return { plain, q: new QuantizedTensor(q.layout, q.codes, q.scales, q.offsets, { subBranch }), product };
}

describe('a sub-branch', () => {
  it('adds B · A to the weights', async () => {
    const { plain, q, product } = await withPair(9);
    using w = dequantize(q);
    using packed = dequantize(plain);
    const [found, base] = [w.read(), packed.read()];
    for (const [i, value] of product.entries()) expect(found[i]).toBeCloseTo(base[i]! + value, 6);
    const bytes = 9 * (rows + cols) + 4 * (9 + rows);
    expect(q.byteLength).toBe(plain.byteLength + bytes);
    expect(q.bitsPerWeight).toBeCloseTo(plain.bitsPerWeight + (8 * bytes) / (rows * cols), 12);
  });

  it.each([1, 5, 40])('is part of every product within its bound: %s tokens', async (tokens) => {
    const { q } = await withPair(16);
    using w = dequantize(q);
    using x = wave([tokens, cols], 0.11, 2);
    const [weights, input] = [w.read(), x.read()];
    for (const mode of ['exact', 'accurate', 'fast'] as Mode[])
      for (const batchInvariant of [false, true]) {
        using y = lutGemm(x, q, { mode, batchInvariant });
        using bound = lutGemmErrorBound(x, q, { mode, batchInvariant });
        using again = await lutGemmAsync(x, q, { mode, batchInvariant, threads: 1 });
        const [found, limit] = [y.read(), bound.read()];
        expect(again.read()).toEqual(found);
        for (let t = 0; t < tokens; t++)
          for (let m = 0; m < rows; m++) {
            let exact = 0;
            let magnitude = 0;
            for (let k = 0; k < cols; k++) {
              exact += weights[m * cols + k]! * input[t * cols + k]!;
              magnitude += Math.abs(weights[m * cols + k]! * input[t * cols + k]!);
            }
            // dequantize rounds each weight once.
            const allowed = limit[t * rows + m]! + magnitude * 2 ** -24;
            expect(Math.abs(found[t * rows + m]! - exact)).toBeLessThanOrEqual(allowed);
          }
      }
  });

  it('is refused where it does not fit', async () => {
    const { q } = await withPair(8);
    const { layout, codes, scales, offsets, subBranch } = q;
    const good = subBranch!;
    const make = (change: Partial<SubBranch>) => () =>
      new QuantizedTensor(layout, codes, scales, offsets, { subBranch: { ...good, ...change } });
    const refused = (code: string, where: string) => expect.objectContaining({ code, where });
    const half = (shape: number[]) => Tensor.zeros('f16', shape);
    expect(make({ a: Tensor.zeros('i8', [71, cols]) })).toThrow(
      refused('LUTRA_E_SHAPE', 'QuantizedTensor.subBranch.a'),
    );
    expect(make({ a: Tensor.zeros('i8', [0, cols]) })).toThrow(refused('LUTRA_E_SHAPE', 'QuantizedTensor.subBranch.a'));
    expect(make({ a: Tensor.zeros('i8', [8, 99]) })).toThrow(refused('LUTRA_E_SHAPE', 'QuantizedTensor.subBranch.a'));
    expect(make({ a: Tensor.zeros('f32', [8, cols]) })).toThrow(
      refused('LUTRA_E_DTYPE', 'QuantizedTensor.subBranch.a'),
    );
    expect(make({ b: half([rows, 8]) })).toThrow(refused('LUTRA_E_DTYPE', 'QuantizedTensor.subBranch.b'));
    expect(make({ b: Tensor.zeros('i8', [8, rows]) })).toThrow(refused('LUTRA_E_SHAPE', 'QuantizedTensor.subBranch.b'));
    expect(make({ aScales: null })).toThrow(refused('LUTRA_E_DTYPE', 'QuantizedTensor.subBranch.aScales'));
    expect(make({ a: half([8, cols]), b: half([rows, 8]), bScales: null })).toThrow(
      refused('LUTRA_E_DTYPE', 'QuantizedTensor.subBranch.aScales'),
    );
    expect(make({ bScales: Tensor.zeros('f32', [8]) })).toThrow(
      refused('LUTRA_E_SHAPE', 'QuantizedTensor.subBranch.bScales'),
    );
    await expect(toPlanes(q)).rejects.toMatchObject({ code: 'LUTRA_E_OPTION', where: 'toPlanes' });
    q.dispose();
    expect(good.a.disposed && good.b.disposed && good.aScales!.disposed).toBe(true);
  });
});
