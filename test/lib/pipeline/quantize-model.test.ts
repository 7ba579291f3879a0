import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { beforeAll, expect, test } from 'vitest';
import { drawHeldOut, drawWindows, readCorpus, tokenizeCorpus } from '../../../lib/calibration/index.js';
import { readCheckpoint } from '../../../lib/formats/index.js';
import { loadTokenizer } from '../../../lib/inference/index.js';
import { dequantize } from '../../../lib/ops/index.js';
import { type Manifest, quantizeModel } from '../../../lib/pipeline/index.js';
import type { QuantizedTensor, Tensor } from '../../../lib/tensor/index.js';
import { energy } from '../quantization/matrices.js';
import { filesOf, scratchDirectory, tinyConfig, words, writeRandomModel } from './random-model.js';

const scratch = scratchDirectory();
const model = join(scratch, 'model');
const rtn = { method: 'rtn', bits: 3, groupSize: 32 };
const gptq = { method: 'gptq', bits: 3, groupSize: 32 };
const calibration = { texts: [words(3000)], samples: 6, sequenceLength: 32, seed: 4 };
const qProj = 'model.layers.0.self_attn.q_proj.weight';

beforeAll(() => writeRandomModel(model));

const manifestIn = (out: string) => JSON.parse(readFileSync(join(out, 'manifest.json'), 'utf8')) as Manifest;

async function valuesOf(directory: string, name: string): Promise<Float32Array> {
  await using checkpoint = await readCheckpoint(directory);
  using loaded = await checkpoint.load(name);
  if (!('layout' in loaded)) return (loaded as Tensor).read() as Float32Array;
  using w = dequantize(loaded as QuantizedTensor);
  return w.read() as Float32Array;
}

test('rtn quantizes every linear layer of the blocks and nothing else, and reads no calibration', async () => {
  const out = join(scratch, 'rtn');
  const result = await quantizeModel({ model, out, recipe: rtn, calibration: { file: join(scratch, 'missing.txt') } });
  await using source = await readCheckpoint(model);
  await using written = await readCheckpoint(out);
  const linear = source.names.filter((name) => name.includes('_proj.'));
  expect(result.layers.map(({ name }) => name).sort()).toEqual(linear.sort());
  expect([...written.quantization!.tensors.keys()].sort()).toEqual(linear);
  for (const name of source.names) {
    const [before, after] = [await valuesOf(model, name), await valuesOf(out, name)];
    const moved = after.map((v, i) => v - before[i]!);
    const distance = energy(moved, before.length) / energy(before, before.length);
    const layer = result.layers.find((candidate) => candidate.name === name);
    if (layer) expect(Math.abs(layer.relativeError / distance - 1)).toBeLessThan(1e-5);
    else expect(distance).toBe(0);
  }
  expect(result).toMatchObject({ out, bytes: written.bytes, bitsPerWeight: written.bitsPerWeight });
  expect(result.layers.every(({ tokens, damping }) => tokens === null && damping === null)).toBe(true);
  expect(result.peakRssBytes).toBeGreaterThan(2 ** 24);
  expect(manifestIn(out).calibration).toBeNull();
});

test.each([rtn, gptq])('shows every layer of $method before and after, until the call has ended', async (recipe) => {
  const out = join(scratch, `shown-${recipe.method}`);
  const seen = new Map<string, { before: Float32Array; after: Float32Array }>();
  const kept: Tensor[] = [];
  const { layers } = await quantizeModel({
    ...{ model, out, recipe, calibration },
    onLayer: async ({ name, original, packed }) => {
      kept.push(original);
      // The job waits: what is read after a turn of the event loop is still there.
      await new Promise((resolve) => setImmediate(resolve));
      using after = dequantize(packed);
      seen.set(name, { before: original.read() as Float32Array, after: after.read() as Float32Array });
    },
  });
  expect([...seen.keys()]).toEqual(layers.map(({ name }) => name));
  for (const [name, { before, after }] of seen) {
    expect(before).toEqual(await valuesOf(model, name));
    expect(after).toEqual(await valuesOf(out, name));
  }
  expect(kept.every(({ disposed }) => disposed)).toBe(true);
});

test('gptq counts the tokens that every layer saw and beats round to nearest', async () => {
  const out = join(scratch, 'gptq');
  const { layers } = await quantizeModel({ model, out, recipe: gptq, calibration });
  expect(layers).toHaveLength(14);
  for (const layer of layers) {
    expect(layer).toMatchObject({ tokens: 6 * 32, damping: 0.01, deadColumns: 0, warnings: [] });
    expect(layer.relativeError).toBeLessThan(layer.rtnError);
  }
});

// What a layer sees in a sequential job is what a job in one pass sees of a model whose earlier layers are those results.
test('a sequential job feeds every layer what its quantized predecessors give', async () => {
  const out = join(scratch, 'sequential');
  await quantizeModel({ model, out, recipe: { ...gptq, trueSequential: true }, calibration });
  const stages = [['q_proj', 'k_proj', 'v_proj'], ['o_proj'], ['gate_proj', 'up_proj'], ['down_proj']];
  const nameOf = (stage: string) => `model.layers.0.${/[qkvo]_/.test(stage) ? 'self_attn' : 'mlp'}.${stage}.weight`;
  const replaced = new Map<string, Float32Array>();
  for (const [index, stage] of stages.entries()) {
    const partly = join(scratch, `partly-${index}`);
    await writeRandomModel(partly, { edit: (name, values) => values.set(replaced.get(name) ?? values) });
    await quantizeModel({ model: partly, out: `${partly}-out`, recipe: gptq, calibration });
    for (const name of stage.map(nameOf)) {
      replaced.set(name, await valuesOf(out, name));
      expect(await valuesOf(`${partly}-out`, name)).toEqual(replaced.get(name));
      if (index > 0) expect(await valuesOf(join(scratch, 'gptq'), name)).not.toEqual(replaced.get(name));
    }
  }
});

test('a sequential job tells of every pass, and writes the same bytes for every number of threads', async () => {
  const jobs = [1, 3].map((threads) => join(scratch, `sequential-${threads}`));
  const recipe = { method: 'decoupleq', bits: 2, groupSize: 32 };
  let collected = 0;
  for (const [index, out] of jobs.entries())
    await quantizeModel({
      model,
      out,
      recipe,
      calibration,
      threads: index ? 3 : 1,
      onProgress: ({ phase }) => {
        collected += Number(phase === 'collect');
      },
    });
  expect(collected).toBe(2 * 2 * 4 * calibration.samples);
  const [one, three] = jobs.map((out) => filesOf(out));
  expect(three).toEqual(one);
});

/** What the attention of the first block reads: the normed embeddings of the windows' tokens. */
async function firstHessian(windows: readonly Int32Array[]): Promise<Float64Array> {
  const table = await valuesOf(model, 'model.embed_tokens.weight');
  const d = tinyConfig.hidden_size;
  const hessian = new Float64Array(d * d);
  for (const id of windows.flatMap((window) => [...window])) {
    const row = table.subarray(id * d, (id + 1) * d);
    const meanSquare = row.reduce((sum, v) => sum + v * v, 0) / d + tinyConfig.rms_norm_eps;
    for (let i = 0; i < d; i++) for (let j = 0; j < d; j++) hessian[i * d + j]! += (row[i]! * row[j]!) / meanSquare;
  }
  return hessian;
}

test('the first layer is measured on the inputs that the calibration text gives it, and on those held out', async () => {
  const out = join(scratch, 'measured');
  const { layers } = await quantizeModel({ model, out, recipe: gptq, calibration: { ...calibration, heldOut: 3 } });
  const tokens = await tokenizeCorpus(await readCorpus(calibration), await loadTokenizer(model));
  const [before, after] = [await valuesOf(model, qProj), await valuesOf(out, qProj)];
  const moved = after.map((v, i) => v - before[i]!);
  const { relativeError, calibrationError, heldOutError } = layers.find(({ name }) => name === qProj)!;
  const d = tinyConfig.hidden_size;
  const [seen, unseen] = [drawWindows(tokens, calibration, 'text'), drawHeldOut(tokens, calibration, 3, 'text')];
  for (const [windows, found] of [
    [seen, relativeError],
    [seen, calibrationError],
    [unseen, heldOutError],
  ] as const) {
    const hessian = await firstHessian(windows);
    const expected = energy(moved, d, hessian) / energy(before, d, hessian);
    expect(Math.abs(found! / expected - 1)).toBeLessThan(1e-3);
  }
  expect(manifestIn(out).calibration).toMatchObject({ samples: 6, heldOut: 3 });
});

const sequential = { ...gptq, trueSequential: true };
test.each([rtn, gptq, sequential])(
  'windows held out change no byte of a checkpoint, and measure: %j',
  async (recipe) => {
    const [out, other] = [join(scratch, 'not-held-out'), join(scratch, 'held-out')];
    const plain = await quantizeModel({ model, out, recipe, calibration, overwrite: true });
    const more = { ...calibration, heldOut: 5 };
    const measured = await quantizeModel({ model, out: other, recipe, calibration: more, overwrite: true });
    expect(filesOf(other).get('model.safetensors')).toEqual(filesOf(out).get('model.safetensors'));
    expect(plain.layers.every(({ calibrationError }) => calibrationError === null)).toBe(true);
    expect(measured.layers.map((layer) => ({ ...layer, calibrationError: null, heldOutError: null }))).toEqual(
      plain.layers,
    );
    for (const { calibrationError, heldOutError } of measured.layers) {
      expect(calibrationError).toBeGreaterThan(0);
      expect(heldOutError! / calibrationError!).toBeGreaterThan(0.3);
      expect(heldOutError).not.toBe(calibrationError);
    }
  },
);

test('a method fitted to few windows does worse on those held out, and one that needs no text does not', async () => {
  const few = { ...calibration, samples: 1, heldOut: 12 };
  const ratios = new Map<string, number>();
  for (const recipe of [rtn, gptq]) {
    const { layers } = await quantizeModel({
      model,
      out: join(scratch, `few-${recipe.method}`),
      recipe,
      calibration: few,
    });
    const logs = layers.map((layer) => Math.log(layer.heldOutError! / layer.calibrationError!));
    ratios.set(recipe.method, Math.exp(logs.reduce((sum, log) => sum + log, 0) / logs.length));
  }
  expect(ratios.get('gptq')).toBeGreaterThan(1.5);
  expect(ratios.get('rtn')).toBeLessThan(1.2);
});

test('later blocks are fed by the quantized blocks before them', async () => {
  const all = { model, calibration, out: join(scratch, 'fed-3') };
  const coarse = await quantizeModel({ ...all, recipe: gptq });
  const overrides = [{ match: 'model.layers.0.*', bits: 4 }];
  const fine = await quantizeModel({ ...all, out: join(scratch, 'fed-4'), recipe: { ...gptq, overrides } });
  const errorIn = ({ layers }: typeof fine) =>
    layers.find(({ name }) => name === 'model.layers.1.self_attn.q_proj.weight')!.rtnError;
  // The same weights on the same grid: only the inputs differ.
  expect(errorIn(fine)).not.toBe(errorIn(coarse));
});

test('one seed writes the same bytes for 1, 2 and 3 threads, manifest included', async () => {
  for (const recipe of [rtn, gptq]) {
    const [one, ...others] = await Promise.all(
      [1, 2, 3].map(async (threads) => {
        const out = join(scratch, `${recipe.method}-${threads}`);
        await quantizeModel({ model, out, recipe, calibration, threads });
        return filesOf(out);
      }),
    );
    expect([...one!.keys()]).toContain('manifest.json');
    for (const files of others) expect(files).toEqual(one);
  }
});

test('another seed gives other windows and another checkpoint', async () => {
  const [out, other] = [join(scratch, 'seed-a'), join(scratch, 'seed-b')];
  await quantizeModel({ model, out, recipe: gptq, calibration });
  await quantizeModel({ model, out: other, recipe: gptq, calibration: { ...calibration, seed: 5 } });
  expect(filesOf(other).get('model.safetensors')).not.toEqual(filesOf(out).get('model.safetensors'));
});

test('the manifest tells what the checkpoint was made from, and no time, path or thread', async () => {
  const out = join(scratch, 'told');
  const { layers } = await quantizeModel({ model, out, recipe: gptq, calibration, threads: 2 });
  const manifest = manifestIn(out);
  expect(Object.keys(manifest)).toEqual([
    'lutra',
    'recipe',
    'calibration',
    'shardBytes',
    'inputs',
    'layers',
    'transforms',
    'finetune',
    'badWindows',
    'outputs',
  ]);
  expect(manifest.recipe.solver.method).toBe('gptq');
  const record = { samples: 6, sequenceLength: 32, seed: 4, separator: null, tokens: 3001 };
  expect(manifest.calibration).toMatchObject(record);
  expect(manifest.layers).toEqual(JSON.parse(JSON.stringify(layers)));
  for (const [file, hash] of Object.entries(manifest.inputs))
    expect(hash).toBe(
      createHash('sha256')
        .update(readFileSync(join(model, file)))
        .digest('hex'),
    );
  expect(Object.keys(manifest.inputs)).toEqual(
    expect.arrayContaining(['config.json', 'model.safetensors', 'tokenizer.json']),
  );
  expect(JSON.stringify(manifest)).not.toMatch(/seconds|threads|\/|Rss/);
  const log = JSON.parse(readFileSync(join(out, 'run-log.json'), 'utf8'));
  expect(log.peakRssBytes).toBeGreaterThan(0);
  expect(log.estimatedPeakBytes).toBeGreaterThan(0);
  const sum = (seconds: number[]) => seconds.reduce((total, one) => total + one, 0);
  const inPhases = sum(Object.values(log.phases));
  const inBlocks = sum(log.blocks.map(({ seconds }: { seconds: number }) => seconds));
  const inLayers = sum(log.layers.map(({ seconds }: { seconds: number }) => seconds));
  expect(log.seconds).toBeGreaterThan(inPhases);
  expect(inPhases).toBeGreaterThan(inBlocks);
  expect(inBlocks).toBeGreaterThan(inLayers);
  expect(log.blocks.map(({ block }: { block: number }) => block)).toEqual([0, 1]);
  expect(log.layers.map(({ name }: { name: string }) => name)).toEqual(layers.map(({ name }) => name));
});

test('an input that is always zero is a dead column of the layers that read it', async () => {
  const dead = join(scratch, 'dead-model');
  await writeRandomModel(dead, {
    edit: (name, values) => {
      if (name === 'model.layers.0.input_layernorm.weight') values[9] = 0;
    },
  });
  const { layers } = await quantizeModel({ model: dead, out: join(scratch, 'dead'), recipe: gptq, calibration });
  for (const { name, deadColumns, warnings } of layers) {
    const reads = /layers\.0\.self_attn\.[qkv]_proj/.test(name);
    expect(deadColumns, name).toBe(reads ? 1 : 0);
    expect(warnings.map(({ kind }) => kind)).toEqual(reads ? ['deadColumns'] : []);
  }
});

test('overrides reach the checkpoint; one that names no layer is refused', async () => {
  const out = join(scratch, 'overrides');
  const overrides = [{ match: '*.down_proj', bits: 4, symmetric: true }];
  await quantizeModel({ model, out, recipe: { ...rtn, overrides } });
  await using written = await readCheckpoint(out);
  for (const [name, { layout }] of written.quantization!.tensors) {
    const down = name.includes('down_proj');
    expect(layout).toMatchObject({ bits: down ? 4 : 3, offsets: down ? 'none' : 'zeroCode' });
  }
  const recipe = { ...rtn, overrides: [{ match: '*.router', bits: 4 }] };
  await expect(quantizeModel({ model, out: join(scratch, 'none'), recipe })).rejects.toMatchObject({
    code: 'LUTRA_E_OPTION',
    where: 'recipe.overrides.0.match',
  });
});

test('scales that f16 cannot hold reach the checkpoint as bf16, on record', async () => {
  const large = join(scratch, 'large-model');
  await writeRandomModel(large, {
    edit: (name, values) => {
      if (name === qProj) for (let i = 0; i < values.length; i++) values[i]! *= 2 ** 24;
    },
  });
  const out = join(scratch, 'large');
  const { layers } = await quantizeModel({ model: large, out, recipe: rtn });
  await using written = await readCheckpoint(out);
  for (const { name, scaleDtype, warnings } of layers) {
    expect(scaleDtype).toBe(name === qProj ? 'bf16' : 'f16');
    expect(written.quantization!.tensors.get(name)!.scaleDtype).toBe(scaleDtype);
    expect(warnings).toHaveLength(name === qProj ? 1 : 0);
  }
});
