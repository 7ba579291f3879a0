import { cpSync, existsSync, mkdirSync, readdirSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeAll, describe, expect, it } from 'vitest';
import { type LutraError, loadModel, type QuantizationJob, quantizeModel } from '../../lib/index.js';
import { type Damage, damagedTensor, damages } from '../damaged-model.js';
import { lutra } from '../lib/cli/lutra.js';
import { failureOf } from '../lib/cli/schemas.js';
import { scratchDirectory, words, writeRandomModel } from '../lib/pipeline/random-model.js';
import { describeWithSmallDisk, mountSmallDisk } from '../small-disk.js';

const scratch = scratchDirectory();
const [model, damaged, outputs] = ['model', 'damaged', 'outputs'].map((name) => join(scratch, name)) as [
  string,
  string,
  string,
];
const calibration = join(scratch, 'calibration.txt');
const gptq = ['--method', 'gptq', '--bits', '3', '--group-size', '32', '--calibration', calibration];
const windows = ['--samples', '8', '--sequence-length', '48'];

beforeAll(async () => {
  await writeRandomModel(model);
  writeFileSync(calibration, words(3000));
  mkdirSync(outputs);
});
afterEach(() => rmSync(damaged, { recursive: true, force: true }));

/** What `lutra quantize` says about a job that must fail and leave nothing. */
async function refusal(source: string, folder = outputs, args = [...gptq, ...windows]) {
  const before = existsSync(folder) ? readdirSync(folder) : [];
  const { code, stdout, stderr } = await lutra(['quantize', source, '--out', join(folder, 'out'), ...args, '--json']);
  expect(code, stderr).toBe(1);
  expect(readdirSync(folder)).toEqual(before);
  expect(stderr.trimEnd().split('\n').at(-1)).toMatch(/^lutra quantize: LUTRA_E_/);
  return failureOf(stdout).error;
}

const tensor = expect.stringContaining(damagedTensor);
const expectations: Record<Damage, object> = {
  'a truncated file': { code: 'LUTRA_E_TRUNCATED', where: join(damaged, 'model.safetensors') },
  'a header longer than the file': { code: 'LUTRA_E_TRUNCATED', where: expect.stringContaining('model.safetensors') },
  'a header that lies about a size': { code: 'LUTRA_E_OFFSETS', where: tensor },
  'overlapping offsets': { code: 'LUTRA_E_OFFSETS', where: tensor },
  'offsets out of range': { code: 'LUTRA_E_OFFSETS', where: expect.stringContaining('model.safetensors') },
  'duplicate keys': { code: 'LUTRA_E_HEADER', message: expect.stringContaining('appears twice') },
  'a type that no weight has': { code: 'LUTRA_E_DTYPE', message: tensor, found: 'I32' },
  'a NaN': { code: 'LUTRA_E_NON_FINITE', where: damagedTensor, found: 'NaN at index [2, 5]' },
  'an infinity': { code: 'LUTRA_E_NON_FINITE', where: damagedTensor, found: '-Infinity at index [2, 5]' },
  'a config that contradicts the shapes': { code: 'LUTRA_E_SHAPE', found: '[32, 64]', expected: '[64, 64]' },
  'an architecture that lutra does not know': { code: 'LUTRA_E_UNSUPPORTED_MODEL', found: '"gpt2"' },
};

describe('lutra quantize, on a model with', () => {
  it.each(Object.keys(damages) as Damage[])('%s', async (damage) => {
    cpSync(model, damaged, { recursive: true });
    damages[damage](damaged);
    expect(await refusal(damaged)).toMatchObject(expectations[damage]);
  });

  it('a calibration text shorter than a window', async () => {
    writeFileSync(join(scratch, 'short.txt'), words(20));
    const args = [...gptq.with(-1, join(scratch, 'short.txt')), ...windows];
    expect(await refusal(model, outputs, args)).toMatchObject({
      code: 'LUTRA_E_CALIBRATION_TOO_SHORT',
      where: join(scratch, 'short.txt'),
      found: '21 tokens',
    });
  });
});

describe('a file that is cut', () => {
  afterEach(() => rmSync(join(outputs, 'out.partial'), { recursive: true, force: true }));

  // The block at hand is in memory by then, and once it is finished it is kept.
  it.each([
    ['preflight', []],
    ['hash', []],
    ['embed', []],
    ['collect', ['out.partial']],
    ['quantize', ['out.partial']],
  ] as const)('in phase %s ends the job', async (phase, left) => {
    cpSync(model, damaged, { recursive: true });
    let cut = false;
    const onProgress: QuantizationJob['onProgress'] = (event) => {
      if (event.phase !== phase || cut) return;
      truncateSync(join(damaged, 'model.safetensors'), 30_000);
      cut = true;
    };
    const failure: LutraError = await quantizeModel({
      model: damaged,
      out: join(outputs, 'out'),
      recipe: { method: 'gptq', bits: 3, groupSize: 32 },
      calibration: { file: calibration, samples: 8, sequenceLength: 48 },
      onProgress,
    }).then(
      () => Promise.reject(new Error('the job succeeded')),
      (error) => error,
    );
    expect(failure).toMatchObject({ code: 'LUTRA_E_TRUNCATED', where: expect.stringContaining('model.safetensors') });
    expect(readdirSync(outputs)).toEqual(left);
  });
});

describe('loadModel', () => {
  const unseen: Damage[] = ['a NaN', 'an infinity'];
  it.each((Object.keys(damages) as Damage[]).filter((damage) => !unseen.includes(damage)))(
    'refuses %s by the same code',
    async (damage) => {
      cpSync(model, damaged, { recursive: true });
      damages[damage](damaged);
      const { code } = expectations[damage] as { code: string };
      await expect(loadModel(damaged)).rejects.toMatchObject({ code });
    },
  );
});

describeWithSmallDisk('lutra quantize, on a full disk', () => {
  // Too small for the checkpoint; and large enough for it, but not for the activations beside it: both are seen at once.
  it.each([
    [48, windows],
    [1600, ['--samples', '400', '--sequence-length', '48']],
  ] as const)('of %i KiB', async (kibibytes, sizes) => {
    const disk = mountSmallDisk(kibibytes * 1024)!;
    try {
      expect(await refusal(model, disk.path, [...gptq, ...sizes])).toMatchObject({
        code: 'LUTRA_E_DISK_FULL',
        where: expect.stringContaining('lutra-disk-'),
      });
    } finally {
      disk.unmount();
    }
  });
});
