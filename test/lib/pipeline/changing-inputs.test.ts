import { cpSync, existsSync, readdirSync, readFileSync, renameSync, utimesSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { beforeAll, expect, test } from 'vitest';
import { readCheckpoint } from '../../../lib/formats/index.js';
import { type Progress, type QuantizationJob, quantizeModel } from '../../../lib/pipeline/index.js';
import { hashInputs } from '../../../lib/pipeline/input-files.js';
import { filesOf, scratchDirectory, words, writeRandomModel } from './random-model.js';

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
  return { model, recipe: { ...gptq, method: 'rtn' }, out: `${model}-out`, onProgress };
}

const gptq = { method: 'gptq', bits: 3, groupSize: 32 };

function edit(path: string, from: string, to: string): void {
  const text = readFileSync(path, 'utf8');
  expect(text).toContain(from);
  writeFileSync(path, text.replace(from, to));
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

test('a config.json that is replaced while a job runs is the one that was read', async () => {
  const same = changing('plan', null, () => {});
  await quantizeModel(same);
  const job = changing('plan', null, (model) =>
    edit(join(model, 'config.json'), '"rope_theta":10000', '"rope_theta":20000'),
  );
  await quantizeModel(job);
  expect(filesOf(job.out)).toEqual(filesOf(same.out));
});

test('a tokenizer that is replaced when the text is tokenized has not the hash of the one that was read', async () => {
  const tokenizer = (model: string) => join(model, 'tokenizer.json');
  const job = changing('plan', null, (model) => edit(tokenizer(model), '"w5":5', '"w05":5'));
  const calibration = { texts: [words(600)], samples: 2, sequenceLength: 16 };
  const changed = { code: 'LUTRA_E_INPUT_CHANGED', where: tokenizer(job.model) };
  await expect(quantizeModel({ ...job, recipe: gptq, calibration })).rejects.toMatchObject(changed);
  expect(existsSync(job.out)).toBe(false);
});

test.each([['a'.repeat(64)], [null]])('a file that came or went since the files were listed, %s', async (sha256) => {
  await using source = await readCheckpoint(original);
  const file = { name: 'tokenizer_config.json', path: join(original, 'tokenizer_config.json'), bytes: 1 };
  const inputs = sha256 ? [] : [file];
  await expect(
    hashInputs(source, { inputs, read: { [file.name]: sha256 } }, undefined, () => {}),
  ).rejects.toMatchObject({
    code: 'LUTRA_E_INPUT_CHANGED',
    where: file.path,
  });
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
