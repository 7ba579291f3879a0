import { join } from 'node:path';
import { expect, test } from 'vitest';
import type { ModelTransform } from '../../../lib/quantization/index.js';
import { findMethod, normalizeRecipe, transforms } from '../../../lib/quantization/index.js';
import { Tensor } from '../../../lib/tensor/index.js';
import { memoryAtRest } from '../../memory-at-rest.js';
import { scratchDirectory, writeRandomModel } from '../pipeline/random-model.js';
import { largestDifference, lively, logitsOf, withCheckpoint, writeModel } from './transformed-model.js';

const scratch = scratchDirectory();
const hadamard = findMethod(transforms, 'hadamard', 'test') as ModelTransform<{ seed: number; heads: boolean }>;

async function rotated(model: string, options: { seed: number; heads: boolean }): Promise<string> {
  return await withCheckpoint(model, async (source) => {
    const after = hadamard.apply(source, options);
    return await writeModel(`${model}-${options.seed}-${options.heads}`, model, after.graph, (name) =>
      after.load(name, {}),
    );
  });
}

test.each([
  ['grouped', {}],
  ['multi-head', { num_key_value_heads: 4 }],
  ['with biases', { attention_bias: true, mlp_bias: true }],
  ['tied', { tie_word_embeddings: true }],
  ['of 12 · 8 channels', { hidden_size: 96, num_attention_heads: 4, num_key_value_heads: 2 }],
  ['of an odd size, with heads of 6', { hidden_size: 33, head_dim: 6, intermediate_size: 64 }],
] as const)('a rotated model computes the same: %s', async (what, config) => {
  const model = await writeRandomModel(join(scratch, what), { config, edit: lively });
  const before = await logitsOf(model);
  for (const options of [
    { seed: 0, heads: false },
    { seed: 7, heads: true },
  ]) {
    const after = await logitsOf(await rotated(model, options));
    expect(largestDifference(after, before)).toBeLessThan(1e-4);
    expect(largestDifference(after, before)).toBeGreaterThan(0);
  }
});

test('a tied model that stores lm_head alone becomes two matrices', async () => {
  const tied = await writeRandomModel(join(scratch, 'tied-source'), { config: { tie_word_embeddings: true } });
  const graph = await withCheckpoint(tied, async (source) => ({ ...source.graph }));
  const shapes = new Map(
    [...graph.shapes].map(([name, shape]) => [name.replace('model.embed_tokens', 'lm_head'), shape]),
  );
  const alone = await withCheckpoint(tied, (source) =>
    writeModel(join(scratch, 'lm-head-alone'), tied, { ...graph, shapes }, (name) =>
      source.load(name.replace('lm_head', 'model.embed_tokens'), {}),
    ),
  );
  const before = await logitsOf(alone);
  expect(before).toEqual(await logitsOf(tied));
  expect(largestDifference(await logitsOf(await rotated(alone, { seed: 1, heads: true })), before)).toBeLessThan(1e-4);
});

test('outliers of planted channels are spread, norms become ones, and other seeds are other rotations', async () => {
  const plant = (name: string, values: Float32Array) => {
    lively(name, values);
    const width = name.includes('down_proj') ? 96 : 64;
    if (name.includes('_proj.weight')) for (let i = 5; i < values.length; i += width) values[i]! *= 30;
  };
  const model = await writeRandomModel(join(scratch, 'outliers'), { edit: plant });
  await withCheckpoint(model, async (source) => {
    const [first, second] = [1, 2].map((seed) => hadamard.apply(source, { seed, heads: false }));
    for (const { name } of source.graph.blocks[0]!.linears.filter(({ name }) => /[qkv]_proj|gate|up/.test(name))) {
      using before = await source.load(name, {});
      using after = await first!.load(name, {});
      using other = await second!.load(name, {});
      expect(outlierRatio(after)).toBeLessThan(outlierRatio(before) / 2);
      expect(other.read()).not.toEqual(after.read());
    }
    using norm = await first!.load(source.graph.finalNorm, {});
    expect(norm.read().every((value) => value === 1)).toBe(true);
  });
});

test('what is stored in 16 bits is rounded to them', async () => {
  const model = await writeRandomModel(join(scratch, 'half'), { edit: lively });
  await withCheckpoint(model, async (source) => {
    const half = { ...source, dtype: () => 'bf16' as const, load: async (name: string) => await narrowed(name) };
    async function narrowed(name: string): Promise<Tensor> {
      using wide = await source.load(name, {});
      return Tensor.copyOf(
        new Uint16Array(new Uint32Array((wide.read() as Float32Array).buffer).map((b) => b >>> 16)),
        wide.shape,
        'bf16',
      );
    }
    const after = hadamard.apply(half, { seed: 0, heads: true });
    for (const name of after.changed) {
      using tensor = await after.load(name, {});
      expect([name, tensor.dtype]).toEqual([name, 'bf16']);
    }
    using layer = await after.load(source.graph.blocks[0]!.linears[3]!.name, {});
    expect(layer.dtype).toBe('f32');
  });
});

test('options and sizes are checked, an abort and a failure leave no memory', async () => {
  const recipe = (transform: object) => ({
    solver: { method: 'rtn' },
    grid: { bits: 3, groupSize: 32 },
    transforms: [transform],
  });
  expect(normalizeRecipe(recipe({ method: 'hadamard' })).transforms).toEqual([
    { method: 'hadamard', seed: 0, heads: true },
  ]);
  for (const bad of [{ seed: -1 }, { seed: 0.5 }, { heads: 1 }, { rotation: 2 }])
    expect(() => normalizeRecipe(recipe({ method: 'hadamard', ...bad }))).toThrow(/recipe\.transforms\.0/);
  const order = { ...recipe({ method: 'awq' }), transforms: [{ method: 'awq' }, { method: 'hadamard' }] };
  expect(() => normalizeRecipe(order)).toThrow(/must come before/);

  const model = await writeRandomModel(join(scratch, 'prime'), {
    config: { hidden_size: 1031, head_dim: 4, num_hidden_layers: 1 },
  });
  await withCheckpoint(model, async (source) => {
    expect(() => hadamard.apply(source, { seed: 0, heads: true })).toThrow(
      expect.objectContaining({ code: 'LUTRA_E_UNSUPPORTED_MODEL', where: 'config.json: hidden_size' }),
    );
  });
  const small = await writeRandomModel(join(scratch, 'small'), { edit: lively });
  await withCheckpoint(small, async (source) => {
    const after = hadamard.apply(source, { seed: 0, heads: true });
    const before = await memoryAtRest();
    const controller = new AbortController();
    controller.abort('enough');
    const name = source.graph.blocks[0]!.linears[3]!.name;
    await expect(after.load(name, { signal: controller.signal })).rejects.toBe('enough');
    const infinite = {
      ...source,
      load: async (what: string) => {
        const tensor = await source.load(what, {});
        if (what === name) tensor.fill(Number.POSITIVE_INFINITY);
        return tensor;
      },
    };
    await expect(hadamard.apply(infinite, { seed: 0, heads: true }).load(name, {})).rejects.toMatchObject({
      code: 'LUTRA_E_NON_FINITE',
    });
    expect(await memoryAtRest()).toBe(before);
  });
});

function outlierRatio(tensor: Tensor): number {
  const values = tensor.read() as Float32Array;
  const most = values.reduce((largest, value) => Math.max(largest, Math.abs(value)), 0);
  return most / Math.sqrt(values.reduce((sum, value) => sum + value * value, 0) / values.length);
}
