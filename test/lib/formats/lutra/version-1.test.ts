import { readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { CheckpointWriter, planCheckpoint, readCheckpoint } from '../../../../lib/formats/index.js';
import { dequantize } from '../../../../lib/ops/index.js';
import type { QuantizedTensor, Tensor } from '../../../../lib/tensor/index.js';
import { matrices, plain, plainValue, weight } from '../../../fixtures/checkpoint-v1-values.js';
import { scratchDirectory } from '../safetensors-bytes.js';
import { writeModel } from '../tiny-model.js';

const frozen = join(import.meta.dirname, '../../../fixtures/checkpoint-v1');
const scratch = scratchDirectory();

describe('a version-1 checkpoint, frozen', () => {
  test.each(Object.keys(matrices))('%s holds the weights of its formula', async (name) => {
    await using checkpoint = await readCheckpoint(frozen);
    const matrix = matrices[name]!;
    const [rows, cols] = matrix.shape;
    using q = (await checkpoint.load(name)) as QuantizedTensor;
    using w = dequantize(q);
    expect(w.shape).toEqual([rows, cols]);
    const expected = Array.from({ length: rows * cols }, (_, i) => weight(matrix, Math.floor(i / cols), i % cols));
    // Scales, codes and offsets are small multiples of powers of two: every sum is exact in fp32.
    expect([...w.read()]).toEqual(expected);
    expect(new Set(expected).size).toBeGreaterThan(8);
  });

  test.each(Object.entries(plain))('%s is kept as it was', async (name, shape) => {
    await using checkpoint = await readCheckpoint(frozen);
    using tensor = (await checkpoint.load(name)) as Tensor;
    expect([tensor.dtype, tensor.shape]).toEqual(['f32', shape]);
    expect([...tensor.read()]).toEqual(Array.from({ length: tensor.elements }, (_, i) => plainValue(i)));
  });

  test('its header says what it holds', async () => {
    await using checkpoint = await readCheckpoint(frozen);
    expect(checkpoint.quantization).toMatchObject({ formatVersion: 1, bits: 3, groupSize: 16, symmetric: false });
    expect([...checkpoint.names].sort()).toEqual([...Object.keys(matrices), ...Object.keys(plain)].sort());
    expect(statSync(join(frozen, 'model.safetensors')).size).toBeLessThan(20_000);
  });

  test('the present writer stores the same matrices in the same bytes', async () => {
    await using original = await readCheckpoint(frozen);
    const shapes = {
      ...plain,
      ...Object.fromEntries(Object.entries(matrices).map(([name, { shape }]) => [name, shape])),
    };
    const tensors = Object.fromEntries(
      Object.entries(shapes).map(([name, shape]) => [name, { dtype: 'F32' as const, shape }]),
    );
    const { quantization_config: _, ...config } = original.config;
    await using source = await readCheckpoint(writeModel(join(scratch, 'source'), { tensors, config }));
    const { tensors: quantized, recipe } = original.quantization!;
    const plan = await planCheckpoint({ source, quantized, recipe: recipe as never });
    const out = join(scratch, 'out');
    await using writer = await CheckpointWriter.create(plan, out);
    for (const name of quantized.keys()) {
      using q = (await original.load(name)) as QuantizedTensor;
      await writer.put(name, q);
    }
    await writer.finish();
    expect(readFileSync(join(out, 'config.json'))).toEqual(readFileSync(join(frozen, 'config.json')));
    // Up to the end of the last quantized part; the tensors behind have other values in this source.
    const parts = [...original.reader.entries.values()].filter(({ name }) => !original.has(name));
    const end = Math.max(...parts.map((part) => part.end));
    const [present, past] = [out, frozen].map((directory) => readFileSync(join(directory, 'model.safetensors')));
    expect(present!.subarray(0, end)).toEqual(past!.subarray(0, end));
    expect(present!.length).toBe(past!.length);
  });
});
