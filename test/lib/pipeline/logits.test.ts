import { copyFileSync, mkdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { beforeAll, describe, expect, test } from 'vitest';
import { planSafetensors, readCheckpoint, SafetensorsWriter } from '../../../lib/formats/index.js';
import { loadModel } from '../../../lib/inference/index.js';
import { dequantize, type Mode } from '../../../lib/ops/index.js';
import { quantizeModel } from '../../../lib/pipeline/index.js';
import { QuantizedTensor, type Tensor } from '../../../lib/tensor/index.js';
import { energy } from '../quantization/matrices.js';
import { scratchDirectory } from './random-model.js';

const demo = join(import.meta.dirname, '..', '..', 'fixtures', 'models', 'demo');
const texts = join(demo, '..', 'demo-texts');
const scratch = scratchDirectory();
const separator = '<|endoftext|>';
const calibration = { file: join(texts, 'calibration.txt'), separator, samples: 8, sequenceLength: 128 };

/** Logits f32 [n, vocabulary] of the same short text. */
async function logitsOf(directory: string, mode: Mode, threads = 0): Promise<Float32Array> {
  const model = await loadModel(directory, { mode, threads });
  try {
    const story = readFileSync(join(texts, 'evaluation.txt'), 'utf8').split(separator)[0]!;
    using logits = await model.logits(model.tokenizer.encode(story.trim(), { bos: true }).slice(0, 48));
    return logits.read() as Float32Array;
  } finally {
    model.dispose();
  }
}

/** Writes the same model with the weights that the packed ones stand for, in f32. */
async function simulate(directory: string, out: string): Promise<void> {
  mkdirSync(out);
  for (const file of ['config.json', 'tokenizer.json', 'tokenizer_config.json'])
    copyFileSync(join(demo, file), join(out, file));
  await using checkpoint = await readCheckpoint(directory);
  const dtypes = { f32: 'F32', f16: 'F16' } as const;
  const tensors = new Map<string, Tensor>();
  for (const name of checkpoint.names) {
    const loaded = await checkpoint.load(name);
    tensors.set(name, loaded instanceof QuantizedTensor ? dequantize(loaded) : loaded);
  }
  const planned = [...tensors].map(([name, { dtype, shape }]) => ({
    name,
    dtype: dtypes[dtype as keyof typeof dtypes],
    shape: [...shape],
  }));
  const writer = await SafetensorsWriter.create(out, planSafetensors(planned));
  for (const [name, tensor] of tensors) await writer.write(name, tensor);
  await writer.close();
}

const nmse = (values: Float32Array, reference: Float32Array) =>
  energy(
    values.map((v, i) => v - reference[i]!),
    values.length,
  ) / energy(reference, reference.length);

describe.each([
  { method: 'rtn', bits: 2, groupSize: 32 },
  { method: 'gptq', bits: 3, groupSize: 64 },
  { method: 'gptq', bits: 4, groupSize: -1, symmetric: true },
  { method: 'rtn', bits: 3, groupSize: 32, finetune: [{ method: 'decoupleq-block', epochs: 1, learningRate: 1e-4 }] },
])('the demo model by $method, $bits bits, group $groupSize', (recipe) => {
  const out = join(scratch, `${recipe.method}-${recipe.bits}`);
  beforeAll(() => quantizeModel({ model: demo, out, recipe, calibration }));

  test('reloading the checkpoint gives the same logits, bit for bit, for any number of threads', async () => {
    const first = await logitsOf(out, 'accurate');
    expect(first.every(Number.isFinite)).toBe(true);
    for (const threads of [0, 1, 3]) expect(await logitsOf(out, 'accurate', threads)).toEqual(first);
  });

  test('packed and simulated weights give the same logits within the bound of each mode', async () => {
    const simulated = `${out}-simulated`;
    await simulate(out, simulated);
    const reference = await logitsOf(simulated, 'exact');
    // A layer's bound on the NMSE grows through four blocks; a wrong weight would show as 1e-2 and more.
    const bounds = { exact: 1e-10, accurate: 1e-5, fast: 2e-2 };
    for (const mode of ['exact', 'accurate', 'fast'] as const)
      expect(nmse(await logitsOf(out, mode), reference), mode).toBeLessThan(bounds[mode]);
    expect(nmse(await logitsOf(demo, 'exact'), reference)).toBeGreaterThan(1e-4);
  });
});
