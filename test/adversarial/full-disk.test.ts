import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import {
  type Checkpoint,
  CheckpointWriter,
  planCheckpoint,
  planSafetensors,
  readCheckpoint,
  SafetensorsWriter,
} from '../../lib/formats/index.js';
import { Tensor } from '../../lib/tensor/index.js';
import { codeOf, failureOf, scratchDirectory } from '../lib/formats/safetensors-bytes.js';
import { entryOf, recipe, seededMatrix, writeModel } from '../lib/formats/tiny-model.js';
import { describeWithSmallDisk, mountSmallDisk, type SmallDisk } from '../small-disk.js';

const matrix = 'model.layers.0.mlp.up_proj.weight';
const entry = entryOf({ rows: 512, cols: 1024 });
const scratch = scratchDirectory();
const tensors = {
  'model.embed_tokens.weight': { dtype: 'F32', shape: [256, 512] },
  [matrix]: { dtype: 'F16', shape: [512, 1024] },
} as const;
const model = writeModel(join(scratch, 'model'), {
  tensors: tensors as never,
  files: { 'tokenizer.json': 'x'.repeat(400_000) },
});

describeWithSmallDisk('a disk that is or runs full', () => {
  let disk: SmallDisk;
  let source: Checkpoint;
  const plan = () => planCheckpoint({ source, quantized: new Map([[matrix, entry]]), recipe });

  beforeEach(async () => {
    disk = mountSmallDisk(4 * 2 ** 20)!;
    source = await readCheckpoint(model);
  });
  afterEach(async () => {
    await source.close();
    disk.unmount();
  });

  test('is seen before anything is written', async () => {
    disk.fillUpTo(2 ** 20);
    const planned = await plan();
    const error = await failureOf(() => CheckpointWriter.create(planned, join(disk.path, 'a', 'out')));
    expect(error.code).toBe('LUTRA_E_DISK_FULL');
    expect(error.where).toContain(disk.path);
    expect(readdirSync(disk.path)).toEqual(['filler']);
  });

  test('ends a quantized matrix, and leaves nothing behind', async () => {
    const writer = await CheckpointWriter.create(await plan(), join(disk.path, 'out'));
    disk.fillUpTo(2 ** 14);
    using weights = seededMatrix(entry, 1);
    const error = await failureOf(() => writer.put(matrix, weights));
    expect(error.code).toBe('LUTRA_E_DISK_FULL');
    expect(error.where).toContain('tensor "model.layers.0.mlp.up_proj.codes"');
    await writer.abort();
    expect(readdirSync(disk.path)).toEqual(['filler']);
  });

  test.each([
    ['a copied tensor', 2 ** 16],
    ['a copied file', 600_000],
  ])('ends %s, and leaves nothing behind', async (_name, free) => {
    {
      await using writer = await CheckpointWriter.create(await plan(), join(disk.path, 'out'));
      using weights = seededMatrix(entry, 1);
      await writer.put(matrix, weights);
      disk.fillUpTo(free);
      expect(await codeOf(() => writer.finish())).toBe('LUTRA_E_DISK_FULL');
    }
    expect(readdirSync(disk.path)).toEqual(['filler']);
  });

  test('ends a safetensors file at its header, too', async () => {
    disk.fillUpTo(0);
    const planned = planSafetensors([{ name: 'x', dtype: 'U8', shape: [8] }]);
    expect(await codeOf(() => SafetensorsWriter.create(disk.path, planned))).toBe('LUTRA_E_DISK_FULL');
  });

  test('is no error where everything fits', async () => {
    await using writer = await CheckpointWriter.create(await plan(), join(disk.path, 'out'));
    using weights = seededMatrix(entry, 1);
    await writer.put(matrix, weights);
    await writer.finish();
    await using checkpoint = await readCheckpoint(join(disk.path, 'out'));
    using table = (await checkpoint.load('model.embed_tokens.weight')) as Tensor;
    expect(table).toBeInstanceOf(Tensor);
  });
});
