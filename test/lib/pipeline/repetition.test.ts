import { cpSync, existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { beforeAll, describe, expect, test } from 'vitest';
import { type Manifest, quantizeModel, type Repetition, recordedJob } from '../../../lib/pipeline/index.js';
import { codeOf } from '../formats/safetensors-bytes.js';
import { filesOf, scratchDirectory, words, writeRandomModel } from './random-model.js';

const scratch = scratchDirectory();
const model = join(scratch, 'model');
const text = join(scratch, 'text.txt');
const made = join(scratch, 'made');
const recipe = { method: 'gptq', bits: 3, groupSize: 32, actOrder: true } as const;
/** No number is a default: each must come out of the manifest. */
const numbers = { samples: 5, sequenceLength: 24, seed: 9, heldOut: 2, separator: '|' };

beforeAll(async () => {
  await writeRandomModel(model);
  writeFileSync(join(model, 'NOTICE'), 'terms');
  writeFileSync(text, [words(600, 1), words(700, 2), words(500, 3)].join('|'));
  const calibration = { file: text, ...numbers };
  await quantizeModel({ model, out: made, recipe, calibration, shardBytes: 30_000 });
});

const repetition = (change: Partial<Repetition> = {}): Repetition => ({
  ...{ model, out: join(scratch, 'again'), calibration: { file: text } },
  ...change,
});
const repeat = async (directory: string, change: Partial<Repetition> = {}) =>
  quantizeModel(await recordedJob(directory, repetition(change)));

test('the manifest, the model and the text make the same directory again', async () => {
  await repeat(made, { threads: 1 });
  expect(filesOf(join(scratch, 'again'))).toEqual(filesOf(made));
});

test('a job without a text is repeated too', async () => {
  const [plain, again] = [join(scratch, 'plain'), join(scratch, 'plain-again')];
  await quantizeModel({ model, out: plain, recipe: { method: 'rtn', bits: 2, groupSize: 64 } });
  await repeat(plain, { out: again, calibration: undefined });
  expect(filesOf(again)).toEqual(filesOf(plain));
  expect(await codeOf(() => repeat(plain, { out: join(scratch, 'with-a-text') }))).toBe('LUTRA_E_OPTION');
});

test('what the manifest tells is not taken from a caller, nor dropped', async () => {
  const told = [{ recipe }, { shardBytes: 1e6 }, { seed: 3 }].map((more) => repetition(more as object));
  const cut = [{ seed: 9 }, { samples: 5 }, { separator: '|' }].map((more) => ({ file: text, ...more }));
  for (const change of [...told, ...cut.map((calibration) => repetition({ calibration }))])
    await expect(recordedJob(made, change), JSON.stringify(change)).rejects.toMatchObject({
      code: 'LUTRA_E_OPTION',
      where: expect.stringMatching(/^recordedJob/),
    });
});

describe('inputs that are others', () => {
  const outOf = (name: string) => join(scratch, `out-${name}`);

  test('are named before the work, and nothing is left', async () => {
    const other = join(scratch, 'other');
    cpSync(model, other, { recursive: true });
    const config = JSON.parse(readFileSync(join(other, 'config.json'), 'utf8'));
    writeFileSync(join(other, 'config.json'), JSON.stringify({ ...config, rms_norm_eps: 1e-6 }));
    writeFileSync(join(other, 'LICENSE'), 'terms');
    const phases = new Set<string>();
    const onProgress = ({ phase }: { phase: string }) => void phases.add(phase);
    await expect(repeat(made, { model: other, out: outOf('model'), onProgress })).rejects.toMatchObject({
      code: 'LUTRA_E_INPUT_CHANGED',
      where: other,
      found: 'LICENSE (new), config.json (changed)',
    });
    expect(phases).not.toContain('quantize');
    expect(existsSync(outOf('model')) || existsSync(`${outOf('model')}.partial`)).toBe(false);
  });

  test('a text that is another', async () => {
    const file = join(scratch, 'other.txt');
    writeFileSync(file, `${readFileSync(text, 'utf8')} w5`);
    await expect(repeat(made, { calibration: { file }, out: outOf('text') })).rejects.toMatchObject({
      code: 'LUTRA_E_INPUT_CHANGED',
      where: file,
    });
  });

  test('a text that is missing', async () => {
    expect(await codeOf(() => repeat(made, { calibration: undefined, out: outOf('none') }))).toBe('LUTRA_E_OPTION');
  });
});

test.each([
  ['version', { version: '0.0.1' }, /Install lutra 0\.0\.1/],
  ['instruction set of this architecture', { isa: 'scalar' }, /LUTRA_ISA=scalar/],
  ['instruction set of another', { isa: 'vliw' }, /a machine with vliw/],
])('a checkpoint of another %s is not repeated', async (_, maker, hint) => {
  const copy = join(scratch, 'copy');
  cpSync(made, copy, { recursive: true });
  const manifest = JSON.parse(readFileSync(join(copy, 'manifest.json'), 'utf8')) as Manifest;
  const edited = { ...manifest, lutra: { ...manifest.lutra, ...maker } };
  writeFileSync(join(copy, 'manifest.json'), JSON.stringify(edited));
  await expect(repeat(copy, { out: join(scratch, 'never') })).rejects.toMatchObject({
    code: 'LUTRA_E_NOT_REPEATABLE',
    hint: expect.stringMatching(hint),
  });
});
