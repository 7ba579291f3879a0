import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { readCheckpoint } from '../../../lib/formats/index.js';
import { loadModel } from '../../../lib/inference/index.js';
import { dequantize } from '../../../lib/ops/index.js';
import { type Manifest, quantizeModel } from '../../../lib/pipeline/index.js';
import type { QuantizedTensor } from '../../../lib/tensor/index.js';
import { memoryAtRest } from '../../memory-at-rest.js';
import { energy } from '../quantization/matrices.js';
import { lively, logitsOf, withCheckpoint, writeModel } from '../quantization/transformed-model.js';
import { filesOf, scratchDirectory, words, writeRandomModel } from './random-model.js';

const scratch = scratchDirectory();
const calibration = { texts: [words(3000)], samples: 6, sequenceLength: 32, seed: 4 };
const grid = { bits: 4, groupSize: 16 };
const recipeOf = (transforms: object[], method = 'rtn') => ({ transforms, solver: { method }, grid }) as never;
const biased = { attention_bias: true, mlp_bias: true };

const nmse = (values: Float32Array, reference: Float32Array) =>
  energy(
    values.map((value, i) => value - reference[i]!),
    values.length,
  ) / energy(reference, reference.length);

/** The same model with the weights that the packed ones stand for. */
async function simulated(directory: string): Promise<string> {
  await using checkpoint = await readCheckpoint(directory);
  return await withCheckpoint(directory, (source) =>
    writeModel(`${directory}-simulated`, directory, source.graph, async (name) => {
      const loaded = await checkpoint.load(name);
      return 'layout' in loaded ? dequantize(loaded as QuantizedTensor) : loaded;
    }),
  );
}

test.each([
  ['hadamard', [{ method: 'hadamard' }], 'rtn', {}],
  ['hadamard, tied, gptq', [{ method: 'hadamard', seed: 3 }], 'gptq', { tie_word_embeddings: true }],
  ['awq', [{ method: 'awq', tokens: 64 }], 'rtn', { num_key_value_heads: 4 }],
  ['awq with biases', [{ method: 'awq', tokens: 64, clip: false }], 'gptq', biased],
  ['both', [{ method: 'hadamard' }, { method: 'awq', tokens: 64 }], 'rtn', biased],
] as const)(
  'a transformed and quantized checkpoint evaluates as its weights say: %s',
  async (what, transforms, method, config) => {
    const model = await writeRandomModel(join(scratch, what), { config, edit: lively });
    const out = `${model}-quantized`;
    const events: string[] = [];
    const job = { model, calibration, recipe: recipeOf([...transforms], method) };
    const { layers, transforms: reports } = await quantizeModel({
      ...job,
      out,
      onProgress: ({ phase }) => void events.push(phase),
    });
    const logits = await logitsOf(out);
    expect(nmse(logits, await logitsOf(await simulated(out)))).toBeLessThan(1e-9);
    const distance = nmse(logits, await logitsOf(model));
    expect(distance).toBeGreaterThan(1e-6);
    expect(distance).toBeLessThan(0.05);

    const awq = transforms.some((transform) => transform.method === 'awq');
    expect(reports.map(({ block, method }) => [block, method])).toEqual(
      awq
        ? [
            [0, 'awq'],
            [1, 'awq'],
          ]
        : [],
    );
    expect(events.filter((phase) => phase === 'transform')).toHaveLength(reports.length);
    const manifest = JSON.parse(readFileSync(join(out, 'manifest.json'), 'utf8')) as Manifest;
    expect(manifest.transforms).toEqual(reports);
    expect(layers.every(({ warnings }) => warnings.length === 0)).toBe(true);
    await using written = await readCheckpoint(out);
    expect(written.config.tie_word_embeddings).toBe(false);

    const again = `${model}-again`;
    await quantizeModel({ ...job, out: again, threads: 1 });
    expect(filesOf(again)).toEqual(filesOf(out));
  },
);

test('transforms come before everything that reads a block: text only where a method looks at it', async () => {
  const model = await writeRandomModel(join(scratch, 'no-text'), { edit: lively });
  await quantizeModel({ model, out: join(scratch, 'no-text-hadamard'), recipe: recipeOf([{ method: 'hadamard' }]) });
  await expect(
    quantizeModel({ model, out: join(scratch, 'no-text-awq'), recipe: recipeOf([{ method: 'awq' }]) }),
  ).rejects.toMatchObject({ code: 'LUTRA_E_OPTION', where: 'calibration' });
});

test('an abort while a block is transformed leaves neither memory nor files', async () => {
  const model = await writeRandomModel(join(scratch, 'abort'), { edit: lively });
  const before = await memoryAtRest();
  const controller = new AbortController();
  const onProgress = ({ phase }: { phase: string }) => {
    if (phase === 'embed') setTimeout(() => controller.abort('enough'), 20);
  };
  const out = join(scratch, 'abort-out');
  const recipe = recipeOf([{ method: 'hadamard' }, { method: 'awq', steps: 100 }]);
  await expect(quantizeModel({ model, out, recipe, calibration, onProgress, signal: controller.signal })).rejects.toBe(
    'enough',
  );
  await expect(loadModel(out)).rejects.toMatchObject({ code: 'LUTRA_E_NOT_FOUND' });
  expect(await memoryAtRest()).toBe(before);
});
