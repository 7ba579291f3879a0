import { cpSync, existsSync, readdirSync, renameSync, utimesSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { beforeAll, expect, test } from 'vitest';
import { type Progress, type QuantizationJob, quantizeModel } from '../../../lib/pipeline/index.js';
import { filesOf, scratchDirectory, writeRandomModel } from './random-model.js';

const scratch = scratchDirectory();
const original = join(scratch, 'original');
let made = 0;

beforeAll(async () => {
  await writeRandomModel(original);
  writeFileSync(join(original, 'LICENSE'), 'as it was');
});

/** A job on a model of its own, in whose directory `change` happens once, when the job reports a phase, of a file where it hashes. */
function changing(phase: Progress['phase'], file: string | null, change: (model: string) => void): QuantizationJob {
  const model = join(scratch, `model-${made++}`);
  cpSync(original, model, { recursive: true });
  let done = false;
  const onProgress = (event: Progress) => {
    if (done || event.phase !== phase || (file !== null && 'file' in event && event.file !== file)) return;
    done = true;
    change(model);
  };
  return { model, recipe: { method: 'rtn', bits: 3, groupSize: 32 }, out: `${model}-out`, onProgress };
}

test('weights that are replaced while a job runs are hashed and quantized as they were opened', async () => {
  const same = changing('plan', null, () => {});
  await quantizeModel(same);
  const other = await writeRandomModel(join(scratch, 'other'), { seed: 2 });
  const job = changing('plan', null, (model) =>
    renameSync(join(other, 'model.safetensors'), join(model, 'model.safetensors')),
  );
  await quantizeModel(job);
  expect(filesOf(job.out)).toEqual(filesOf(same.out));
});

test.each(['LICENSE', 'model.safetensors'])('%s must not be written to while it is hashed', async (name) => {
  const job = changing('hash', name, (model) => utimesSync(join(model, name), 1, 1));
  await expect(quantizeModel(job)).rejects.toMatchObject({ code: 'LUTRA_E_IO', where: join(job.model, name) });
  expect(existsSync(job.out)).toBe(false);
});

test('a file that is copied must be what was hashed', async () => {
  const job = changing('finish', null, (model) => writeFileSync(join(model, 'LICENSE'), 'not as it was'));
  const where = join(job.model, 'LICENSE');
  await expect(quantizeModel(job)).rejects.toMatchObject({ code: 'LUTRA_E_INPUT_CHANGED', where });
  expect(existsSync(job.out)).toBe(false);
  writeFileSync(where, 'as it was');
  await quantizeModel({ ...job, onProgress: undefined });
  expect(readdirSync(job.out)).toContain('LICENSE');
});
