import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { beforeAll, expect, test } from 'vitest';
import { readCheckpoint } from '../../../lib/formats/index.js';
import { type Manifest, quantizeModel } from '../../../lib/pipeline/index.js';
import { type QuantizedTensor, rankOf, subBranchTensors } from '../../../lib/tensor/index.js';
import { scratchDirectory, words, writeRandomModel } from './random-model.js';

const scratch = scratchDirectory();
const model = join(scratch, 'model');
beforeAll(() => writeRandomModel(model));

const job = (out: string, lowRank: object) => ({
  model,
  out: join(scratch, out),
  recipe: { method: 'rtn', bits: 3, groupSize: 32, lowRank } as const,
  calibration: { texts: [words(3000)], samples: 2, sequenceLength: 16 },
});

test.each(['f16', 'i8'])('pairs of %s are written, read again, counted and reported', async (storage) => {
  const { out, ...rest } = job(storage, { method: 'fbquant', rank: 2, storage, steps: 5 });
  const { layers, bitsPerWeight } = await quantizeModel({ out, ...rest });
  await using checkpoint = await readCheckpoint(out);
  let [bytes, weights] = [0, 0];
  for (const { name, lowRank } of layers) {
    expect(lowRank).toMatchObject({ rank: 2, dtype: storage });
    using tensor = (await checkpoint.load(name)) as QuantizedTensor;
    expect([rankOf(tensor.subBranch!), tensor.subBranch!.a.dtype]).toEqual([2, storage]);
    const parts = [tensor.codes, tensor.scales, tensor.offsets!, ...subBranchTensors(tensor.subBranch!)];
    // On disk every part is a multiple of 64 bytes.
    for (const { byteLength } of parts) bytes += Math.ceil(byteLength / 64) * 64;
    weights += tensor.shape[0] * tensor.shape[1];
  }
  expect(bitsPerWeight).toBeCloseTo((8 * bytes) / weights, 9);
  const manifest = JSON.parse(readFileSync(join(out, 'manifest.json'), 'utf8')) as Manifest;
  expect(manifest.layers).toEqual(layers);
  expect(manifest.recipe.lowRank).toMatchObject({ method: 'fbquant', rank: 2, storage, steps: 5 });
});

test('a rank that a layer cannot have is refused before any work', async () => {
  const refused = job('large', { method: 'loftq', rank: 4096 });
  await expect(quantizeModel(refused)).rejects.toMatchObject({ code: 'LUTRA_E_SHAPE', found: 4096 });
  expect(existsSync(refused.out)).toBe(false);
});

test('finetuning takes the pairs into account and leaves them as they are', async () => {
  const lowRank = { method: 'correction', rank: 2 };
  const plain = job('plain', lowRank);
  const tuned = job('tuned', lowRank);
  await quantizeModel(plain);
  const finetune = [{ method: 'decoupleq-block' }];
  const { finetune: blocks } = await quantizeModel({ ...tuned, recipe: { ...tuned.recipe, finetune } });
  for (const { lossBefore, lossAfter } of blocks) expect(lossAfter).toBeLessThan(lossBefore);
  await using before = await readCheckpoint(plain.out);
  await using after = await readCheckpoint(tuned.out);
  // The first block's inputs are the same: so are its codes and its pairs.
  const name = 'model.layers.0.self_attn.q_proj.weight';
  using left = (await before.load(name)) as QuantizedTensor;
  using right = (await after.load(name)) as QuantizedTensor;
  expect(right.codes.read()).toEqual(left.codes.read());
  expect(right.subBranch!.a.read()).toEqual(left.subBranch!.a.read());
  expect(right.scales.read()).not.toEqual(left.scales.read());
});
