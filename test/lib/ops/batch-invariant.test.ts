import { describe, expect, it } from 'vitest';
import {
  dequantize,
  lutGemm,
  lutGemmAsync,
  lutGemmErrorBound,
  type Mode,
  type ProductOptions,
  Program,
} from '../../../lib/ops/index.js';
import { quantize } from '../../../lib/quantization/index.js';
import { Tensor, type TensorData } from '../../../lib/tensor/index.js';

const [rows, cols, tokens] = [70, 96, 4097];
const modes: readonly Mode[] = ['exact', 'accurate', 'fast'];

function wave(shape: number[], step: number): Tensor {
  const count = shape.reduce((product, n) => product * n, 1);
  return Tensor.copyOf(
    Float32Array.from({ length: count }, (_, i) => Math.sin(i * step) * (1 + (i % 5))),
    shape,
  );
}

const sameBits = (a: TensorData, b: TensorData): boolean =>
  Buffer.compare(Buffer.from(a.buffer), Buffer.from(b.buffer)) === 0;

/** The places of a token among the others that are compared with the token alone. */
const places = [0, 1, 7, 8, 255, 256, 1000, tokens - 1];

describe('batchInvariant', () => {
  it.each(modes)('gives a token the same bits alone and among 4,096 others: %s', async (mode) => {
    using w = wave([rows, cols], 0.37);
    using x = wave([tokens, cols], 0.11);
    for (const bits of [2, 3, 4] as const) {
      using q = await quantize(w, { method: 'rtn', bits, groupSize: 32 });
      const options = { mode, batchInvariant: true };
      // Scales of 11 bits times whole codes: dequantize rounds nothing.
      using dense = dequantize(q);
      const weights = dense.read();
      using among = lutGemm(x, q, options);
      using asynchronous = await lutGemmAsync(x, q, options);
      expect(sameBits(asynchronous.read(), among.read())).toBe(true);
      for (const place of places) {
        using token = x.rows(place, place + 1);
        using alone = lutGemm(token, q, options);
        expect(alone.read()).toEqual(among.read(place * rows, rows));
        using bound = lutGemmErrorBound(token, q, options);
        const [y, b, input] = [alone.read(), bound.read(), token.read()];
        for (let m = 0; m < rows; m++) {
          let exact = 0;
          for (let k = 0; k < cols; k++) exact += weights[m * cols + k]! * input[k]!;
          expect(b[m]).toBeGreaterThan(0);
          expect(Math.abs(y[m]! - exact)).toBeLessThanOrEqual(b[m]!);
        }
      }
    }
  });

  it.each(['f32', 'f16', 'bf16'] as const)('holds for linear with weights of %s', (dtype) => {
    using single = wave([rows, cols], 0.37);
    using w = Tensor.zeros(dtype, [rows, cols]);
    new Program().convert(single, w).run();
    using x = wave([tokens, cols], 0.11);
    const product = (input: Tensor, options: ProductOptions) => {
      using y = Tensor.zeros('f32', [input.shape[0]!, rows]);
      using program = new Program().linear(w, input, y, options);
      program.run();
      return y.read();
    };
    const among = product(x, { batchInvariant: true });
    for (const place of places) {
      using token = x.rows(place, place + 1);
      expect(product(token, { batchInvariant: true })).toEqual(among.subarray(place * rows, (place + 1) * rows));
    }
    const plain = product(x, {});
    expect(among.every((value, i) => Math.abs(value - plain[i]!) < 1e-3)).toBe(true);
  });

  it('is refused where it is neither true nor false', async () => {
    using w = wave([16, 32], 0.3);
    using q = await quantize(w, { method: 'rtn', bits: 4, groupSize: 32 });
    using x = wave([1, 32], 0.2);
    using y = Tensor.zeros('f32', [1, 16]);
    const batchInvariant = 1 as unknown as boolean;
    const refused = (where: string) => expect.objectContaining({ code: 'LUTRA_E_OPTION', where });
    expect(() => lutGemm(x, q, { batchInvariant })).toThrow(refused('lutGemm.batchInvariant'));
    await expect(lutGemmAsync(x, q, { batchInvariant })).rejects.toEqual(refused('lutGemmAsync.batchInvariant'));
    expect(() => lutGemmErrorBound(x, q, { batchInvariant })).toThrow(refused('lutGemmErrorBound.batchInvariant'));
    expect(() => new Program().linear(q, x, y, { batchInvariant })).toThrow(refused('linear.batchInvariant'));
  });
});
