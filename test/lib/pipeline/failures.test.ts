import { mkdirSync, readdirSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeAll, expect, test, vi } from 'vitest';
import { OutputDirectory } from '../../../lib/formats/index.js';
import { loadModel } from '../../../lib/inference/index.js';
import { addon } from '../../../lib/native/index.js';
import { ActivationGenerations } from '../../../lib/pipeline/activation-generations.js';
import { type Progress, type ProgressPhase, type QuantizationJob, quantizeModel } from '../../../lib/pipeline/index.js';
import { memoryAtRest } from '../../memory-at-rest.js';
import { mountSmallDisk } from '../../small-disk.js';
import { filesOf, scratchDirectory, tinyConfig, words, writeRandomModel } from './random-model.js';

const scratch = scratchDirectory();
const model = join(scratch, 'model');
const outputs = join(scratch, 'outputs');
const recipe = { method: 'gptq', bits: 3, groupSize: 32 };
const calibration = { texts: [words(3000)], samples: 6, sequenceLength: 32 };

afterEach(() => vi.restoreAllMocks());

beforeAll(async () => {
  mkdirSync(outputs);
  await writeRandomModel(model);
});

/** Runs a job that must fail, and checks that its folder then holds what it held before, and finished blocks where it got so far. */
async function refusal(job: Partial<QuantizationJob>, folder = outputs, left: 'work' | null = null): Promise<unknown> {
  const before = readdirSync(folder).sort();
  const failure = await quantizeModel({ model, out: join(folder, 'new'), recipe, calibration, ...job }).then(
    () => new Error('the job succeeded'),
    (error: unknown) => error,
  );
  // An abort in a slow sync is answered before the work is given back.
  await vi.waitFor(() => {
    const names = readdirSync(folder, { recursive: true, encoding: 'utf8' });
    expect(names.filter((name) => /\.lutra-job-\d/.test(name))).toEqual([]);
    expect(readdirSync(folder).sort()).toEqual(left ? [...before, 'new.partial'].sort() : before);
  }, 20_000);
  rmSync(join(folder, 'new.partial'), { recursive: true, force: true });
  return failure;
}

test('an abort in every phase rejects with its reason, leaves no output and says no more', async () => {
  const early: ProgressPhase[] = ['encode', 'plan', 'preflight', 'hash', 'calibrate', 'embed'];
  const phases: ProgressPhase[] = [...early, 'collect', 'quantize', 'advance', 'journal', 'finish'];
  const memory = await memoryAtRest();
  for (const phase of phases)
    for (const deferred of [false, true]) {
      const controller = new AbortController();
      const reason = new Error(`stop in ${phase}`);
      let settled = false;
      let late = 0;
      const onProgress = (event: { phase: ProgressPhase }) => {
        if (settled) late += 1;
        if (event.phase !== phase) return;
        if (deferred) setImmediate(() => controller.abort(reason));
        else controller.abort(reason);
      };
      // The other phases come in the first block, or before it.
      const left = ['journal', 'finish'].includes(phase) ? 'work' : null;
      const failure = await refusal({ signal: controller.signal, onProgress }, outputs, left);
      settled = true;
      expect(failure, phase).toBe(reason);
      await new Promise((resolve) => setTimeout(resolve, 20));
      expect(late, phase).toBe(0);
    }
  expect(addon().nativeMemory()).toBe(memory);
  expect(await refusal({ signal: AbortSignal.abort('before') })).toBe('before');
});

test('what cannot be closed or removed does not hide why a job ends, and all else is closed', async () => {
  const memory = await memoryAtRest();
  const { close } = ActivationGenerations.prototype;
  const closed = vi.spyOn(ActivationGenerations.prototype, 'close').mockImplementation(async function (
    this: ActivationGenerations,
  ) {
    await close.call(this);
    throw new Error('not closed');
  });
  const { leave } = OutputDirectory.prototype;
  const left = vi.spyOn(OutputDirectory.prototype, 'leave').mockImplementation(async function (this: OutputDirectory) {
    await leave.call(this);
    throw new Error('not removed');
  });
  const controller = new AbortController();
  const onProgress = ({ phase }: Progress) => {
    if (phase === 'collect') controller.abort('enough');
  };
  const job = { signal: controller.signal, onProgress, calibration: { ...calibration, heldOut: 2 } };
  expect(await refusal(job)).toBe('enough');
  expect(closed).toHaveBeenCalledTimes(2);
  expect(left).toHaveBeenCalledTimes(1);
  expect(await memoryAtRest()).toBe(memory);
});

test('every phase is reported, in order', async () => {
  const seen: ProgressPhase[] = [];
  const hashed: { bytes: number; totalBytes: number }[] = [];
  const onProgress = (event: Progress) => {
    if (seen.at(-1) !== event.phase) seen.push(event.phase);
    if (event.phase === 'hash') hashed.push(event);
  };
  await quantizeModel({ model, out: join(scratch, 'reported'), recipe, calibration, onProgress });
  const block: ProgressPhase[] = ['collect', 'quantize'];
  const blocks: ProgressPhase[] = [...block, 'advance', 'journal', ...block, 'journal'];
  expect(seen).toEqual(['encode', 'plan', 'calibrate', 'preflight', 'hash', 'embed', ...blocks, 'finish']);
  const files = [...filesOf(model).values()].reduce((sum, { length }) => sum + length, 0);
  expect(new Set(hashed.map(({ totalBytes }) => totalBytes))).toEqual(new Set([files]));
  expect(hashed.map(({ bytes }) => bytes)).toEqual(hashed.map(({ bytes }) => bytes).sort((a, b) => a - b));
  expect(hashed.at(-1)!.bytes).toBe(files);
});

test('an error of the progress listener ends the job and leaves nothing', async () => {
  const failure = new Error('listener');
  const onProgress = () => {
    throw failure;
  };
  expect(await refusal({ onProgress })).toBe(failure);
});

test('a NaN or infinity in any tensor is named before calibration begins', async () => {
  const places = [
    ['model.layers.1.mlp.down_proj.weight', Number.NaN, 'NaN at index [2, 5]', 2 * 96 + 5],
    ['model.norm.weight', Number.NEGATIVE_INFINITY, '-Infinity at index [7]', 7],
  ] as const;
  for (const [tensor, value, found, index] of places) {
    const damaged = join(scratch, `damaged-${index}`);
    await writeRandomModel(damaged, {
      edit: (name, values) => {
        if (name === tensor) values[index] = value;
      },
    });
    const seen = new Set<ProgressPhase>();
    const failure = await refusal({ model: damaged, onProgress: ({ phase }) => void seen.add(phase) });
    expect(failure).toMatchObject({ code: 'LUTRA_E_NON_FINITE', where: tensor, found });
    expect([...seen]).toEqual(['encode', 'plan', 'calibrate', 'preflight']);
  }
});

test('calibration that is missing, too short or senseless is refused', async () => {
  expect(await refusal({ calibration: undefined })).toMatchObject({ code: 'LUTRA_E_OPTION', where: 'calibration' });
  const none = {} as { file: string };
  expect(await refusal({ calibration: none })).toMatchObject({ code: 'LUTRA_E_OPTION', where: 'calibration' });
  expect(await refusal({ calibration: { ...calibration, texts: [words(30)] } })).toMatchObject({
    code: 'LUTRA_E_CALIBRATION_TOO_SHORT',
    found: '31 tokens',
    expected: 'at least 32',
  });
  expect(await refusal({ calibration: { file: join(scratch, 'none.txt') } })).toMatchObject({
    code: 'LUTRA_E_NOT_FOUND',
  });
  for (const wrong of [{ samples: 0 }, { samples: 1.5 }, { sequenceLength: 49 }, { seed: -1 }, { seed: Number.NaN }])
    expect(await refusal({ calibration: { ...calibration, ...wrong } })).toMatchObject({
      code: 'LUTRA_E_OPTION',
      where: `calibration.${Object.keys(wrong)[0]}`,
    });
});

test('a strict job fails on what another job records', async () => {
  const dead = join(scratch, 'dead-model');
  await writeRandomModel(dead, {
    edit: (name, values) => {
      if (name === 'model.layers.1.input_layernorm.weight') values[9] = 0;
    },
  });
  expect(await refusal({ model: dead, strict: true }, outputs, 'work')).toMatchObject({
    code: 'LUTRA_E_STRICT',
    where: 'model.layers.1.self_attn.q_proj.weight',
    found: 'deadColumns',
  });
  // 64 tokens are enough for every layer but the one with 96 columns.
  expect(await refusal({ calibration: { ...calibration, samples: 2 }, strict: true })).toMatchObject({
    code: 'LUTRA_E_STRICT',
    where: 'model.layers.0.mlp.down_proj.weight',
    found: 'fewTokens',
  });
  await quantizeModel({ model, out: join(scratch, 'strict'), recipe, calibration, strict: true });
});

test('a config.json that counts fewer layers than the checkpoint holds is refused', async () => {
  const deep = await writeRandomModel(join(scratch, 'deep'));
  writeFileSync(join(deep, 'config.json'), JSON.stringify({ ...tinyConfig, num_hidden_layers: 1 }));
  const refused = { code: 'LUTRA_E_SHAPE', where: expect.stringContaining('num_hidden_layers'), found: 1, expected: 2 };
  expect(await refusal({ model: deep })).toMatchObject(refused);
  await expect(loadModel(deep)).rejects.toMatchObject(refused);
});

test('a recipe or a model that cannot be run is refused', async () => {
  expect(await refusal({ recipe: { ...recipe, method: 'none' } })).toMatchObject({ code: 'LUTRA_E_METHOD' });
  expect(await refusal({ recipe: { ...recipe, bits: 1 } })).toMatchObject({ code: 'LUTRA_E_BITS' });
  expect(await refusal({ recipe: { ...recipe, groupSize: 31 } })).toMatchObject({ code: 'LUTRA_E_GROUP_SIZE' });
  expect(await refusal({ model: join(scratch, 'nowhere') })).toMatchObject({ code: 'LUTRA_E_NOT_FOUND' });
  const wrong = join(scratch, 'wrong');
  await writeRandomModel(wrong);
  writeFileSync(join(wrong, 'config.json'), JSON.stringify({ model_type: 'gpt2' }));
  expect(await refusal({ model: wrong })).toMatchObject({ code: 'LUTRA_E_UNSUPPORTED_MODEL' });
});

test('files beside the weights that cannot be copied are refused before calibration begins', async () => {
  const unread = { file: join(scratch, 'unread.txt') };
  const linked = await writeRandomModel(join(scratch, 'linked'));
  symlinkSync(join(scratch, 'model', 'config.json'), join(linked, 'LICENSE'));
  expect(await refusal({ model: linked, calibration: unread })).toMatchObject({
    code: 'LUTRA_E_HEADER',
    where: join(linked, 'LICENSE'),
  });
  const link = await writeRandomModel(join(scratch, 'link-to-folder'));
  mkdirSync(join(link, 'texts'));
  symlinkSync('texts', join(link, 'LICENSE'));
  expect(await refusal({ model: link, calibration: unread })).toMatchObject({ code: 'LUTRA_E_IO' });
  const folder = await writeRandomModel(join(scratch, 'folder'));
  mkdirSync(join(folder, 'LICENSE'));
  await quantizeModel({ model: folder, out: join(scratch, 'without-folder'), recipe, calibration });
  expect(readdirSync(join(scratch, 'without-folder'))).not.toContain('LICENSE');
});

test('the output is never the input, and never replaces another without leave', async () => {
  const folder = join(scratch, 'paths');
  mkdirSync(folder);
  const own = await writeRandomModel(join(folder, 'model'));
  const before = filesOf(own);
  expect(await refusal({ model: own, out: own, overwrite: true }, folder)).toMatchObject({
    code: 'LUTRA_E_SAME_PATH',
  });
  const out = join(folder, 'out');
  const rtn = { model: own, out, recipe: { ...recipe, method: 'rtn' } };
  await quantizeModel(rtn);
  const first = filesOf(out);
  expect(await refusal({ ...rtn, recipe }, folder)).toMatchObject({ code: 'LUTRA_E_EXISTS' });
  expect(filesOf(out)).toEqual(first);
  await quantizeModel({ ...rtn, recipe: { ...recipe, method: 'rtn', bits: 2 }, overwrite: true });
  expect(filesOf(out).get('model.safetensors')).not.toEqual(first.get('model.safetensors'));
  expect(await refusal({ model: out }, folder)).toMatchObject({ code: 'LUTRA_E_UNSUPPORTED_MODEL' });
  expect(filesOf(own)).toEqual(before);
});

test('a full disk leaves no debris', async ({ skip }) => {
  // Too small for the checkpoint; and large enough for it, but not for the activations beside it.
  const sizes = [
    [48, 6],
    [1600, 400],
  ] as const;
  for (const [kibibytes, samples] of sizes) {
    const disk = mountSmallDisk(kibibytes * 1024);
    if (!disk) return skip('mounting a small file system needs root');
    try {
      const failure = await refusal({ calibration: { ...calibration, samples } }, disk.path);
      expect(failure).toMatchObject({ code: 'LUTRA_E_DISK_FULL' });
    } finally {
      disk.unmount();
    }
  }
});

test('keys that a job does not have are refused, since they would have no effect', async () => {
  for (const [job, where, found] of [
    [{ overwite: true }, 'quantizeModel', "'overwite'"],
    [{ maxMemory: 1 }, 'quantizeModel', "'maxMemory'"],
    [{ calibration: { ...calibration, sample: 3 } }, 'calibration', "'sample'"],
    [{ calibration: 'text.txt' }, 'calibration.options', 'text.txt'],
  ] as const)
    expect(await refusal(job as never)).toMatchObject({ code: 'LUTRA_E_OPTION', where, found });
});
