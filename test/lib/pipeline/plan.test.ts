import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { beforeAll, describe, expect, test } from 'vitest';
import { mistakes, plantMistake } from '../../../bench/memory/planted-mistakes.js';
import { addon } from '../../../lib/native/index.js';
import { type MemoryParts, type Progress, planQuantization, quantizeModel } from '../../../lib/pipeline/index.js';
import { checkMemory } from '../../../lib/pipeline/memory-limit.js';
import { memoryAtRest } from '../../memory-at-rest.js';
import { scratchDirectory, words, writeRandomModel } from './random-model.js';

const scratch = scratchDirectory();
const model = join(scratch, 'model');
const calibration = { texts: [words(2000)], samples: 6, sequenceLength: 32, heldOut: 2 };
const gptq = { method: 'gptq', bits: 3, groupSize: 64 };
const job = { model, out: join(scratch, 'out'), recipe: gptq, calibration };

beforeAll(() => writeRandomModel(model));

describe('a planted mistake', () => {
  const folder = (index: number) => join(scratch, `planted-${index}`);
  const planted = mistakes.filter(({ ofLargeModels }) => !ofLargeModels);
  test.each(planted.map((mistake, index) => ({ ...mistake, index })))('$name', async ({ index, ...mistake }) => {
    mkdirSync(folder(index));
    const job = await plantMistake(mistake, folder(index), 'tiny');
    const before = readdirSync(folder(index), { recursive: true });
    const seen: string[] = [];
    await expect(planQuantization(job)).rejects.toMatchObject({ code: mistake.code });
    const refused = quantizeModel({ ...job, onProgress: ({ phase }) => void seen.push(phase) });
    await expect(refused).rejects.toMatchObject({ code: mistake.code });
    expect(seen.filter((phase) => phase !== 'encode')).toEqual([]);
    expect(readdirSync(folder(index), { recursive: true })).toEqual(before);
  });

  test('is all that is wrong with its job', async () => {
    mkdirSync(folder(-1));
    const job = await plantMistake({ name: 'none', code: 'LUTRA_E_INTERNAL' }, folder(-1), 'tiny');
    expect((await planQuantization(job)).blocks).toHaveLength(2);
    expect(existsSync(job.out)).toBe(false);
  });
});

test('a plan tells what the job then does, and leaves nothing', async () => {
  const memory = await memoryAtRest();
  const plan = await planQuantization(job);
  expect(addon().nativeMemory()).toBe(memory);
  expect(readdirSync(scratch)).not.toContain('out');
  const events: Progress[] = [];
  const result = await quantizeModel({ ...job, onProgress: (event) => void events.push(event) });
  expect(events[0]).toMatchObject({ phase: 'encode' });
  expect(events.find(({ phase }) => phase !== 'encode')).toMatchObject({
    phase: 'plan',
    plan: { blocks: plan.blocks, output: plan.output },
  });
  expect(plan.output).toMatchObject({
    bytes: result.bytes,
    bitsPerWeight: result.bitsPerWeight,
    bitsPerParameter: result.bitsPerParameter,
    files: [{ name: 'model.safetensors', bytes: readFileSync(join(job.out, 'model.safetensors')).length }],
  });
  const layers = plan.blocks.flatMap((block) => block.layers);
  expect(layers.map(({ name }) => name)).toEqual(result.layers.map(({ name }) => name));
  expect(plan.calibration).toEqual({ windows: 6, heldOut: 2, sequenceLength: 32, tokens: 2001 });
  // f32 of hidden size 64.
  expect(plan.disk.scratchBytes).toBe(2 * 8 * 32 * 64 * 4);
  expect(plan.time).toBeNull();
  // Rows of 96 columns in groups of 64.
  expect(layers.filter(({ tail }) => tail !== null).map(({ name, tail }) => [name, tail])).toEqual([
    ['model.layers.0.mlp.down_proj.weight', 32],
    ['model.layers.1.mlp.down_proj.weight', 32],
  ]);
});

test('the text is part of the estimate, and what encoding it comes to hold is watched', async () => {
  const texts = [words(200_000)];
  const long = { ...job, out: join(scratch, 'long'), calibration: { ...calibration, texts } };
  const bytes = Buffer.byteLength(texts[0]!);
  const { memory } = await planQuantization(long);
  expect(memory).toMatchObject({ at: 'encoding the text', parts: { text: expect.any(Number) } });
  expect(memory.parts.text).toBeGreaterThan(8 * bytes);
  const held = new Uint8Array(2 ** 28);
  // The estimate counts what the process has when it is asked: what comes after is only seen by watching.
  const onProgress = ({ phase }: Progress) => void (phase === 'encode' && held.fill(1));
  const watched = { ...long, maxMemoryBytes: process.memoryUsage.rss() + 2 ** 27 + 16 * bytes, onProgress };
  await expect(quantizeModel(watched)).rejects.toMatchObject({ code: 'LUTRA_E_MEMORY', where: 'encode' });
});

test('a measured plan says how long a job takes and what that rests on', async () => {
  for (const recipe of [gptq, { ...gptq, method: 'rtn' }]) {
    const { time, blocks } = await planQuantization(
      { ...job, out: join(scratch, 'timed'), recipe },
      { measureTime: true },
    );
    expect(time!.seconds).toBeGreaterThan(0);
    expect(time!.seconds).toBeGreaterThanOrEqual(blocks.length * time!.secondsPerBlock);
    expect(time!.basis.join()).toContain('7 of the 7 layers');
  }
});

test('what is no reason to refuse a job is told', async () => {
  const odd = await writeRandomModel(join(scratch, 'odd'));
  const tokenizer = JSON.parse(readFileSync(join(odd, 'tokenizer.json'), 'utf8'));
  tokenizer.model.vocab.far = 64;
  writeFileSync(join(odd, 'tokenizer.json'), JSON.stringify(tokenizer));
  const rtn = { ...job, model: odd, out: join(scratch, 'odd-out'), recipe: { ...gptq, method: 'rtn' } };
  const { notes } = await planQuantization({ ...rtn, calibration: undefined });
  expect(notes).toContainEqual(expect.stringContaining('the tokenizer has ids beyond the embedding'));
  await expect(planQuantization(rtn)).rejects.toMatchObject({ code: 'LUTRA_E_SHAPE', found: 'ids up to 64' });
});

test('windows that are many more than the text has to offer are told, in the plan and in the result', async () => {
  const fine = { ...job, recipe: { ...gptq, groupSize: 32 } };
  const out = join(scratch, 'few-tokens');
  const short = { texts: [words(60)], samples: 16, sequenceLength: 32 };
  const note = expect.stringMatching(
    /^16 calibration windows of 32 tokens each, from a text of 61: .* about 8 of them/,
  );
  expect((await planQuantization({ ...fine, out, calibration: short })).notes).toEqual([note]);
  expect((await quantizeModel({ ...fine, out, calibration: short })).notes).toEqual([note]);
  const heldOut = { ...calibration, samples: 1, heldOut: 600 };
  const { notes } = await planQuantization({ ...fine, out: join(scratch, 'held-out'), calibration: heldOut });
  expect(notes).toEqual([expect.stringMatching(/^600 held-out windows /)]);
  expect((await planQuantization({ ...fine, out: join(scratch, 'enough') })).notes).toEqual([]);
});

test('an output among what the kernel shows is refused at once', async ({ skip }) => {
  if (process.platform !== 'linux') return skip('only Linux has /proc');
  const refused = { code: 'LUTRA_E_IO', where: '/proc' };
  await expect(planQuantization({ ...job, out: '/proc/out' })).rejects.toMatchObject(refused);
});

test('a refusal for memory names what can help', () => {
  const parts = { process: 100, text: 0, weights: 40, hessians: 30, window: 20, solver: 10 };
  const refusal = (parts: MemoryParts, limit: number) => () =>
    checkMemory({ peakBytes: 200, at: 'here', parts }, limit);
  expect(refusal(parts, 150)).toThrow('To fit, allow 0.2 kB, or give shorter calibration windows, or choose a method');
  expect(refusal({ ...parts, hessians: 0, window: 0 }, 150)).toThrow(/To fit, allow 0\.2 kB\.$/);
  const encoding = { ...parts, text: 100, weights: 0, hessians: 0, window: 0, solver: 0 };
  expect(refusal(encoding, 150)).toThrow(/To fit, allow 0\.2 kB, or give a shorter calibration text\.$/);
  expect(refusal(parts, 90)).toThrow('The process itself, before any work, is above that: allow at least 0.2 kB.');
  expect(refusal(parts, 200)).not.toThrow();
});

test('a job keeps to its memory, or is refused before its work', async () => {
  const out = join(scratch, 'limited');
  const { memory } = await planQuantization({ ...job, out });
  const { process: own, ...parts } = memory.parts;
  expect(own + Object.values(parts).reduce((sum, bytes) => sum + bytes, 0)).toBe(memory.peakBytes);
  await expect(quantizeModel({ ...job, out, maxMemoryBytes: 1e6 })).rejects.toMatchObject({
    code: 'LUTRA_E_MEMORY',
    found: expect.stringContaining('process'),
    expected: 'at most 1.00 MB',
    hint: expect.stringMatching(/process itself.*allow at least/),
  });
  await expect(quantizeModel({ ...job, out, maxMemoryBytes: -1 })).rejects.toMatchObject({ code: 'LUTRA_E_OPTION' });
  const enough = memory.peakBytes + 2 ** 30;
  expect((await quantizeModel({ ...job, out, maxMemoryBytes: enough })).layers).toHaveLength(14);
  // What the job did not reckon with: a listener that keeps what is not its own.
  const kept: Buffer[] = [];
  const limit = process.memoryUsage.rss() + 400 * 2 ** 20;
  const refused = quantizeModel({
    ...job,
    out: join(scratch, 'over'),
    maxMemoryBytes: limit,
    onProgress: ({ phase }) => {
      if (phase === 'embed') kept.push(Buffer.alloc(2 ** 28, 1));
    },
  });
  await expect(refused).rejects.toMatchObject({ code: 'LUTRA_E_MEMORY', where: 'embed' });
  expect(readdirSync(scratch)).not.toContain('over');
});
