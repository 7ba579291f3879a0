import { describe, expect, it } from 'vitest';
import { loadModel } from '../../../lib/inference/index.js';
import { lutGemm, lutGemmAsync, Program } from '../../../lib/ops/index.js';
import { quantizeModel } from '../../../lib/pipeline/index.js';
import { quantize } from '../../../lib/quantization/index.js';
import { Tensor } from '../../../lib/tensor/index.js';

const recipe = { method: 'rtn', bits: 4, groupSize: 32 } as const;

describe('threads', () => {
  it.each([-5, 1.5, 1025, 9999, Number.NaN, '2' as unknown as number])(
    '%s are refused at every door',
    async (threads) => {
      using w = Tensor.zeros('f32', [16, 32]);
      using q = await quantize(w, recipe);
      using x = Tensor.zeros('f32', [1, 32]);
      using program = new Program();
      const refused = (where: string) =>
        expect.objectContaining({
          code: 'LUTRA_E_OPTION',
          where,
          found: String(threads),
          expected: expect.any(String),
        });
      expect(() => lutGemm(x, q, { threads })).toThrow(refused('lutGemm.threads'));
      await expect(lutGemmAsync(x, q, { threads })).rejects.toEqual(refused('lutGemmAsync.threads'));
      expect(() => program.run({ threads })).toThrow(refused('threads'));
      await expect(program.runAsync({ threads })).rejects.toEqual(refused('threads'));
      await expect(quantize(w, recipe, { threads })).rejects.toEqual(refused('quantize.threads'));
      await expect(loadModel('nowhere', { threads })).rejects.toEqual(refused('loadModel.threads'));
      const job = { model: 'nowhere', out: 'nowhere', recipe, threads };
      await expect(quantizeModel(job)).rejects.toEqual(refused('quantizeModel.threads'));
    },
  );

  it('from 0 to 1024 give the same bits', async () => {
    using w = Tensor.from(
      Float32Array.from({ length: 64 * 32 }, (_, i) => Math.sin(i)),
      [64, 32],
    );
    using q = await quantize(w, recipe);
    using x = Tensor.from(Float32Array.from({ length: 32 }, (_, i) => Math.cos(i)));
    const results = [0, 1, 2, 1024].map((threads) => {
      using y = lutGemm(x, q, { threads });
      return y.read();
    });
    for (const result of results) expect(result).toEqual(results[0]);
  });
});
