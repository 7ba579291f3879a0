import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { beforeAll, describe, expect, test } from 'vitest';
import { drawWindows, HessianCollector, readCorpus, tokenizeCorpus } from '../../../lib/calibration/index.js';
import { loadTokenizer } from '../../../lib/inference/index.js';
import { addon } from '../../../lib/native/index.js';
import { Program } from '../../../lib/ops/index.js';
import {
  type Manifest,
  planQuantization,
  type QuantizationJob,
  quantizeModel,
  recordedJob,
} from '../../../lib/pipeline/index.js';
import { Tensor } from '../../../lib/tensor/index.js';

import { memoryAtRest } from '../../memory-at-rest.js';
import { filesOf, scratchDirectory, words, writeRandomModel } from './random-model.js';

const scratch = scratchDirectory();
const model = join(scratch, 'model');
const gptq = { method: 'gptq', bits: 3, groupSize: 32 };
const [width, poison] = [64, 5];
const text = words(3000)
  .replaceAll(/\bw5\b/g, 'w6')
  .split(' ')
  .map((word, at) => (at % 160 === 80 ? `w${poison}` : word))
  .join(' ');
const numbers = { samples: 8, sequenceLength: 32, seed: 4 };
/** Numbers of the windows that hold the word. */
let bad: number[] = [];
let tokens: Int32Array;

/** A model whose first MLP overflows where one word stands, and nowhere else: only that word's embedding has channel 0. */
beforeAll(async () => {
  const edit = (name: string, values: Float32Array) => {
    const clear = (row: number) => values.fill(0, row * width, (row + 1) * width);
    if (name === 'model.embed_tokens.weight')
      for (let id = 0; id < 64; id++) values[id * width] = id === poison ? 1 : 0;
    if (name.endsWith('layers.0.self_attn.o_proj.weight')) clear(0);
    if (name.endsWith('layers.0.post_attention_layernorm.weight')) values[0] = 1e25;
  };
  await writeRandomModel(model, { edit });
  const corpus = await readCorpus({ texts: [text] });
  tokens = await tokenizeCorpus(corpus, await loadTokenizer(model));
  const windows = drawWindows(tokens, numbers, 'text');
  bad = [...windows.keys()].filter((window) => windows[window]!.includes(poison));
  expect(bad.length).toBeGreaterThan(1);
  expect(bad.length).toBeLessThan(5);
});

const calibrationOf = (maxBadWindows: number) => ({ texts: [text], ...numbers, maxBadWindows });
const run = (out: string, change: Partial<QuantizationJob> = {}) =>
  quantizeModel({
    ...{ model, out: join(scratch, out), recipe: gptq, calibration: calibrationOf(bad.length) },
    ...change,
  });
const manifestIn = (out: string) => JSON.parse(readFileSync(join(scratch, out, 'manifest.json'), 'utf8')) as Manifest;

const awq = { transforms: [{ method: 'awq' }], solver: { method: 'gptq' }, grid: { bits: 3, groupSize: 32 } };
const tuned = { method: 'decoupleq-block', epochs: 1 };
const finetuned = { solver: { method: 'decoupleq' }, grid: { bits: 2, groupSize: 32 }, finetune: [tuned] };
const recipes: [string, object][] = [
  ['gptq', gptq],
  ['sequential gptq', { ...gptq, trueSequential: true }],
  ['boa', { ...gptq, method: 'boa' }],
  ['awq before gptq', awq],
  ['finetuning', finetuned],
];

test.each(recipes)('%s: bad windows are left out, and told', async (name, recipe) => {
  const memory = await memoryAtRest();
  const out = name.replaceAll(/\W+/g, '-');
  const result = await run(out, { recipe: recipe as never });
  expect(result.badWindows).toEqual(bad.map((window) => ({ block: 0, window })));
  expect(result.warnings.badWindow).toBe(bad.length);
  expect(manifestIn(out).badWindows).toEqual(result.badWindows);
  for (const layer of result.layers) {
    expect(layer.tokens).toBe((numbers.samples - bad.length) * numbers.sequenceLength);
    expect(Number.isFinite(layer.relativeError)).toBe(true);
  }
  expect(addon().nativeMemory()).toBe(memory);
});

test('the bytes are the same for any number of threads, in two runs, and repeated by the manifest', async () => {
  await run('whole', { threads: 1 });
  await run('again', { threads: 3 });
  expect(filesOf(join(scratch, 'again'))).toEqual(filesOf(join(scratch, 'whole')));

  const stop = new AbortController();
  const onProgress = ({ phase }: { phase: string }) => {
    if (phase === 'journal') stop.abort(new Error('enough'));
  };
  await expect(run('resumed', { signal: stop.signal, onProgress })).rejects.toThrow('enough');
  const resumed = await run('resumed');
  expect(resumed).toMatchObject({ resumedBlocks: 1, warnings: { badWindow: bad.length } });
  expect(filesOf(join(scratch, 'resumed'))).toEqual(filesOf(join(scratch, 'whole')));

  const recorded = { model, out: join(scratch, 'recorded'), calibration: { texts: [text] } };
  await quantizeModel(await recordedJob(join(scratch, 'whole'), recorded));
  expect(filesOf(join(scratch, 'recorded'))).toEqual(filesOf(join(scratch, 'whole')));
});

describe('a job fails', () => {
  test.each([0, 1])('where more than %i windows are bad', async (maxBadWindows) => {
    await expect(run('over', { calibration: calibrationOf(maxBadWindows) })).rejects.toMatchObject({
      code: 'LUTRA_E_NON_FINITE',
      where: `model.layers.0, calibration window ${bad[maxBadWindows]}`,
      found: expect.stringMatching(/^(NaN|-?Infinity) at index \[\d+, \d+\]$/),
    });
  });

  test('where it is strict', async () => {
    await expect(run('strict', { strict: true })).rejects.toMatchObject({
      code: 'LUTRA_E_STRICT',
      where: `model.layers.0, calibration window ${bad[0]}`,
      found: 'badWindow',
    });
  });

  test.each(['collect', 'finish'])('where it is strict, and an earlier run was not and ended in %s', async (last) => {
    const out = `lenient-${last}`;
    const onProgress = ({ phase, ...event }: { phase: string; block?: number }) => {
      if (phase === last && (last === 'finish' || event.block === 2)) throw new Error('enough');
    };
    await expect(run(out, { onProgress })).rejects.toThrow('enough');
    const where = `block 0, calibration window ${bad[0]}`;
    await expect(run(out, { strict: true })).rejects.toMatchObject({
      code: 'LUTRA_E_STRICT',
      where,
      found: 'badWindow',
    });
    expect(await run(out)).toMatchObject({ warnings: { badWindow: bad.length } });
  });

  test('where a window held out is bad, whatever the budget', async () => {
    const calibration = { texts: [text], samples: 4, sequenceLength: 32, heldOut: 40, maxBadWindows: 3, seed: 4 };
    await expect(run('held-out', { calibration })).rejects.toMatchObject({
      code: 'LUTRA_E_NON_FINITE',
      where: expect.stringMatching(/^model\.layers\.0, window held out \d+$/),
    });
  });

  test('where its allocation meets one, whatever the budget', async () => {
    const recipe = { solver: { method: 'rtn' }, grid: { bits: 3, groupSize: 32 }, allocation: { bitsPerWeight: 3.5 } };
    await expect(run('allocated', { recipe: recipe as never })).rejects.toMatchObject({
      code: 'LUTRA_E_NON_FINITE',
      where: expect.stringMatching(/^model\.layers\.0, window \d+ of the allocation$/),
      hint: expect.stringContaining('leaves no window out'),
    });
  });

  test.each([-1, 8, 0.5])('where %s windows may be bad of eight', async (maxBadWindows) => {
    await expect(run('senseless', { calibration: calibrationOf(maxBadWindows) })).rejects.toMatchObject({
      code: 'LUTRA_E_OPTION',
      where: 'calibration.maxBadWindows',
    });
  });
});

test('a measured plan leaves out what the job may, and fails where the job will', async () => {
  const badFirst = (seed: number) => {
    const windows = drawWindows(tokens, { ...numbers, seed }, 'text');
    return windows.findIndex((window) => !window.includes(poison));
  };
  const seed = Array.from({ length: 100 }, (_, at) => at).find((at) => badFirst(at) > 0)!;
  const planned = (maxBadWindows: number) => {
    const calibration = { texts: [text], ...numbers, seed, maxBadWindows };
    return planQuantization({ model, out: join(scratch, 'planned'), recipe: gptq, calibration }, { measureTime: true });
  };
  const { time } = await planned(badFirst(seed));
  expect(time!.seconds).toBeGreaterThan(0);
  expect(time!.basis.join()).toContain('7 of the 7 layers');
  const last = badFirst(seed) - 1;
  await expect(planned(last)).rejects.toMatchObject({
    code: 'LUTRA_E_NON_FINITE',
    where: `model.layers.0, calibration window ${last}`,
  });
});

test('a Hessian that begins again is of what comes then', async () => {
  using x = Tensor.copyOf(Float32Array.of(1, Number.NaN, 3, 4), [2, 2]);
  using program = new Program();
  const collector = new HessianCollector();
  collector.tap('x', x, program);
  await program.runAsync({});
  collector.ran();
  collector.reset();
  x.write(Float32Array.of(1, 2, 3, 4));
  await program.runAsync({});
  collector.ran();
  const { hessian, tokens } = collector.take('x');
  expect([...hessian.read()]).toEqual([10, 14, 20]);
  expect(tokens).toBe(2);
  hessian.dispose();
});
