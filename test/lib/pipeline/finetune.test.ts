import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { beforeAll, describe, expect, test } from 'vitest';
import { readCheckpoint } from '../../../lib/formats/index.js';
import { loadModel } from '../../../lib/inference/index.js';
import { addon } from '../../../lib/native/index.js';
import { type Manifest, type Progress, quantizeModel } from '../../../lib/pipeline/index.js';
import type { QuantizedTensor, Tensor } from '../../../lib/tensor/index.js';
import { memoryAtRest } from '../../memory-at-rest.js';
import { filesOf, scratchDirectory, words, writeRandomModel } from './random-model.js';

const scratch = scratchDirectory();
const model = join(scratch, 'model');
const calibration = { texts: [words(3000)], samples: 6, sequenceLength: 32, seed: 4 };
const tuned = (changes: object = {}, solver: object = { method: 'rtn', bits: 2, groupSize: 32 }) => ({
  ...solver,
  finetune: [{ method: 'decoupleq-block', epochs: 2, learningRate: 1e-3, ...changes }],
});

beforeAll(() => writeRandomModel(model));

/** Codes and norms of every tensor of a checkpoint as they are stored. */
async function stored(directory: string): Promise<Map<string, { codes: unknown; offsets?: string; norm: unknown }>> {
  await using checkpoint = await readCheckpoint(directory);
  const all = new Map();
  for (const name of checkpoint.names) {
    using loaded = await checkpoint.load(name);
    if ('layout' in loaded)
      all.set(name, { codes: (loaded as QuantizedTensor).codes.read(), offsets: loaded.layout.offsets, norm: null });
    else all.set(name, { codes: null, norm: name.includes('norm') ? (loaded as Tensor).read() : null });
  }
  return all;
}

describe.each([
  { method: 'rtn', bits: 2, groupSize: 32 },
  { method: 'rtn', bits: 3, groupSize: -1, symmetric: true },
  { method: 'bcq', bits: 2, groupSize: 32 },
])('a model by $method at $bits bits, group $groupSize, with the block stage', (solver) => {
  test('has the codes of the solver alone in its first block, other norms, and a smaller error in every block', async () => {
    const [plain, out] = [
      join(scratch, `plain-${solver.method}-${solver.bits}`),
      join(scratch, `${solver.method}-${solver.bits}`),
    ];
    await quantizeModel({ model, out: plain, recipe: solver });
    const { finetune } = await quantizeModel({ model, out, recipe: tuned({}, solver), calibration });
    expect(finetune.map(({ block, method }) => [block, method])).toEqual([
      [0, 'decoupleq-block'],
      [1, 'decoupleq-block'],
    ]);
    for (const { lossBefore, lossAfter } of finetune) expect(lossAfter).toBeLessThan(lossBefore);
    const manifest = JSON.parse(readFileSync(join(out, 'manifest.json'), 'utf8')) as Manifest;
    expect(manifest.finetune).toEqual(finetune);
    const [before, after] = [await stored(plain), await stored(out)];
    expect([...after.keys()].sort()).toEqual([...before.keys()].sort());
    const offsets = solver.symmetric ? 'none' : 'real';
    for (const [name, { codes, norm }] of before) {
      const found = after.get(name)!;
      if (codes) expect(found, name).toMatchObject({ codes, offsets });
      if (!norm) continue;
      if (name.includes('layers.')) expect(found.norm, name).not.toEqual(norm);
      else expect(found.norm, name).toEqual(norm);
    }
    (await loadModel(out)).dispose();
  });
});

test('norms stay byte for byte where they are not trained', async () => {
  const out = join(scratch, 'frozen');
  await quantizeModel({ model, out, recipe: tuned({ norms: false }), calibration });
  const [before, after] = [await stored(model), await stored(out)];
  for (const [name, { norm }] of before) if (norm) expect(after.get(name)!.norm, name).toEqual(norm);
});

test('works on what a method with Hessians chose, the next block seeing the tuned one', async () => {
  const seen: string[] = [];
  const onProgress = ({ phase }: Progress) => {
    if (seen.at(-1) !== phase) seen.push(phase);
  };
  const recipe = tuned({}, { method: 'gptq', bits: 2, groupSize: 32 });
  const result = await quantizeModel({ model, out: join(scratch, 'gptq'), recipe, calibration, onProgress });
  const block = ['target', 'collect', 'quantize', 'finetune'];
  const blocks = [...block, 'advance', 'journal', ...block, 'journal'];
  expect(seen).toEqual(['encode', 'plan', 'calibrate', 'preflight', 'hash', 'embed', ...blocks, 'finish']);
  for (const { lossBefore, lossAfter } of result.finetune) expect(lossAfter).toBeLessThan(lossBefore);
  const untuned = tuned({ learningRate: 1e-30 }, { method: 'gptq', bits: 2, groupSize: 32 });
  const { finetune } = await quantizeModel({ model, out: join(scratch, 'untuned'), recipe: untuned, calibration });
  expect(finetune[0]!.lossBefore).toBe(result.finetune[0]!.lossBefore);
  expect(finetune[1]!.lossBefore).not.toBe(result.finetune[1]!.lossBefore);
});

test('the same job writes the same bytes for every number of threads', async () => {
  const files = [];
  for (const threads of [1, 3]) {
    const out = join(scratch, `threads-${threads}`);
    await quantizeModel({ model, out, recipe: tuned(), calibration, threads });
    files.push(filesOf(out));
  }
  expect(files[1]).toEqual(files[0]);
});

test('an abort while a block is tuned rejects with its reason, at once, and leaves nothing', async () => {
  const memory = await memoryAtRest();
  for (const phase of ['target', 'finetune']) {
    const controller = new AbortController();
    const reason = new Error(`stop in ${phase}`);
    const onProgress = (event: Progress) => {
      if (event.phase === phase) setImmediate(() => controller.abort(reason));
    };
    const job = { model, out: join(scratch, 'aborted'), recipe: tuned({ epochs: 1000 }), calibration, onProgress };
    await expect(quantizeModel({ ...job, signal: controller.signal })).rejects.toBe(reason);
    await expect(readCheckpoint(job.out)).rejects.toMatchObject({ code: 'LUTRA_E_NOT_FOUND' });
  }
  expect(await memoryAtRest()).toBe(memory);
  expect(addon().nativeMemory()).toBe(memory);
});

test('tuning needs a text', async () => {
  await expect(quantizeModel({ model, out: join(scratch, 'none'), recipe: tuned() })).rejects.toMatchObject({
    code: 'LUTRA_E_OPTION',
    where: 'calibration',
  });
});
