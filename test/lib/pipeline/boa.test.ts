import { join } from 'node:path';
import { beforeAll, expect, test } from 'vitest';
import { RowHessianCollector } from '../../../lib/calibration/index.js';
import { readCheckpoint } from '../../../lib/formats/index.js';
import { parseConfig } from '../../../lib/models/index.js';
import { nativeMemory } from '../../../lib/native/index.js';
import { dequantize, Program } from '../../../lib/ops/index.js';
import { type Progress, quantizeModel } from '../../../lib/pipeline/index.js';
import { type QuantizedTensor, Tensor } from '../../../lib/tensor/index.js';
import { memoryAtRest } from '../../memory-at-rest.js';
import { normal } from '../quantization/matrices.js';
import { filesOf, scratchDirectory, tinyConfig, words, writeRandomModel } from './random-model.js';

const scratch = scratchDirectory();
const model = join(scratch, 'model');
const calibration = { texts: [words(3000)], samples: 6, sequenceLength: 32, seed: 4 };
const boa = { method: 'boa', bits: 3, groupSize: 32 };
const gptq = { method: 'gptq', bits: 3, groupSize: 32, clipSearch: 'hessian' };
const projection = (name: string) => `model.layers.0.self_attn.${name}_proj.weight`;

beforeAll(() => writeRandomModel(model));

async function weightsOf(directory: string, name: string): Promise<Float32Array> {
  await using checkpoint = await readCheckpoint(directory);
  using q = (await checkpoint.load(name)) as QuantizedTensor;
  using w = dequantize(q);
  return w.read() as Float32Array;
}

async function run(name: string, recipe: object, more: object = {}) {
  const out = join(scratch, name);
  const result = await quantizeModel({
    model,
    out,
    recipe: recipe as typeof boa,
    calibration,
    overwrite: true,
    ...more,
  });
  return { out, layers: new Map(result.layers.map((layer) => [layer.name, layer])) };
}

test('queries, keys and values are not gptq’s, the other layers of the first block are', async () => {
  const [ours, theirs] = [await run('boa', boa), await run('gptq', gptq)];
  expect(ours.layers.size).toBe(14);
  for (const name of ['q', 'k', 'v'].map(projection))
    expect(await weightsOf(ours.out, name)).not.toEqual(await weightsOf(theirs.out, name));
  const others = [...ours.layers.keys()].filter(
    (name) => name.startsWith('model.layers.0.') && !/[qkv]_proj/.test(name),
  );
  expect(others).toHaveLength(4);
  for (const name of others) expect(await weightsOf(ours.out, name)).toEqual(await weightsOf(theirs.out, name));
  for (const { relativeError, rtnError, tokens } of ours.layers.values()) {
    expect(relativeError).toBeLessThan(rtnError);
    expect(tokens).toBe(6 * 32);
  }
  // A block of all of a head's rows is gptq; values have their own Hessians still.
  const wide = await run('wide', { ...boa, rowBlock: 16 });
  for (const name of ['q', 'k'].map(projection))
    expect(await weightsOf(wide.out, name)).toEqual(await weightsOf(theirs.out, name));
  expect(await weightsOf(wide.out, projection('v'))).toEqual(await weightsOf(ours.out, projection('v')));
  const shared = await run('shared', { ...boa, rowBlock: 16, headHessians: false });
  for (const name of theirs.layers.keys())
    expect(await weightsOf(shared.out, name)).toEqual(await weightsOf(theirs.out, name));
  const rows = await run('rows', { ...boa, valueRowHessian: true });
  expect(await weightsOf(rows.out, projection('v'))).not.toEqual(await weightsOf(ours.out, projection('v')));
  expect(await weightsOf(rows.out, projection('q'))).toEqual(await weightsOf(ours.out, projection('q')));
});

test('the same job writes the same bytes for any number of threads', async () => {
  const recipe = { ...boa, refineScales: true, adaptiveGrid: true, rowBlock: 4, valueRowHessian: true };
  const first = filesOf((await run('one', recipe, { threads: 1 })).out);
  first.delete('run-log.json');
  for (const threads of [2, 5]) {
    const again = filesOf((await run('more', recipe, { threads })).out);
    again.delete('run-log.json');
    expect(again).toEqual(first);
  }
});

test('query heads that share keys share their row Hessian, and one head each is plain attention', async () => {
  const head = { hidden_size: 32, head_dim: 8, num_attention_heads: 4 };
  const tensors: Tensor[] = [];
  const taken = (kvHeads: number, q: Float32Array, k: Float32Array) => {
    const config = parseConfig({ ...tinyConfig, ...head, num_key_value_heads: kvHeads }, 'config.json');
    const collector = new RowHessianCollector(config);
    using queries = Tensor.copyOf(q, [20, 32]);
    using keys = Tensor.copyOf(k, [20, 8 * kvHeads]);
    using x = Tensor.zeros('f32', [20, 32]);
    using program = new Program();
    collector.tap({ x, q: queries, keys }, program);
    program.run();
    const found = collector.take(20);
    collector.dispose();
    tensors.push(found.query, found.key);
    return { query: found.query.read() as Float64Array, key: found.key.read() as Float64Array };
  };
  const q = normal(20, 32, 1);
  const k = normal(20, 16, 2);
  const grouped = taken(2, q, k);
  // The same keys, written out for every query head.
  const repeated = Float32Array.from({ length: 20 * 32 }, (_, i) => {
    const [row, column] = [Math.floor(i / 32), i % 32];
    return k[row * 16 + Math.floor(column / 16) * 8 + (column % 8)]!;
  });
  const plain = taken(4, q, repeated);
  expect(grouped.query).toEqual(plain.query);
  for (let kv = 0; kv < 2; kv++)
    for (let i = 0; i < 64; i++) {
      const sum = plain.key[2 * kv * 64 + i]! + plain.key[(2 * kv + 1) * 64 + i]!;
      expect(grouped.key[kv * 64 + i]).toBeCloseTo(sum, 9);
    }
  for (const tensor of tensors) tensor.dispose();
});

test('an abort while heads are being collected ends the job and gives all memory back', async () => {
  const before = await memoryAtRest();
  for (const stop of [3, 9, 15]) {
    const controller = new AbortController();
    let collected = 0;
    const onProgress = ({ phase }: Progress) => {
      if (phase === 'collect' && ++collected === stop) controller.abort('enough');
    };
    await expect(run('aborted', boa, { signal: controller.signal, onProgress })).rejects.toBe('enough');
    expect(nativeMemory()).toBe(before);
  }
});
