import { join } from 'node:path';
import { expect, test } from 'vitest';
import { scalingGroups } from '../../../lib/models/index.js';
import type { Weight } from '../../../lib/ops/index.js';
import {
  type BlockSample,
  type BlockTransform,
  findMethod,
  normalizeRecipe,
  type TensorSource,
  transforms,
} from '../../../lib/quantization/index.js';
import { Tensor } from '../../../lib/tensor/index.js';
import { memoryAtRest } from '../../memory-at-rest.js';
import { scratchDirectory, writeRandomModel } from '../pipeline/random-model.js';
import { normal } from './matrices.js';
import { blockWeights, largestDifference, lively, logitsOf, withCheckpoint, writeModel } from './transformed-model.js';

const scratch = scratchDirectory();
const awq = findMethod(transforms, 'awq', 'test') as BlockTransform<{ steps: number; clip: boolean; tokens: number }>;
const grid = { bits: 3, groupSize: 32, symmetric: false };
const options = { steps: 8, clip: false, tokens: 40 };

interface Report {
  groups: { layers: string[]; alpha: number; error: number; plainError: number }[];
  clippedGroups?: Record<string, number>;
}

/** Inputs of a block: normal numbers with a few loud channels, two sequences of 20 tokens. */
function sampleOf(source: TensorSource, index: number, loudness = 20): BlockSample {
  const inputs = new Map<string, Tensor>();
  for (const { input, inFeatures } of source.graph.blocks[index]!.linears) {
    if (inputs.has(input)) continue;
    const x = normal(40, inFeatures, inputs.size + 7 * index);
    for (let i = 0; i < x.length; i++) if (i % inFeatures < 3) x[i]! *= loudness;
    inputs.set(input, Tensor.copyOf(x, [40, inFeatures]));
  }
  const dispose = () => {
    for (const tensor of inputs.values()) tensor.dispose();
  };
  return { inputs, sequenceLength: 20, [Symbol.dispose]: dispose };
}

async function transformed(
  source: TensorSource,
  weights: Map<string, Weight>,
  index: number,
  chosen: Partial<typeof options> = {},
  { sample = sampleOf(source, index), signal }: { sample?: BlockSample; signal?: AbortSignal } = {},
): Promise<Report> {
  const input = {
    config: source.graph.config,
    block: source.graph.blocks[index]!,
    weights,
    dtype: source.dtype,
    grid: () => grid,
    storage: 'zeroCode' as const,
    options: { ...options, ...chosen },
    sample: async () => sample,
  };
  return (await awq.run(input, { where: 'block', signal })) as unknown as Report;
}

/** A model with every block transformed, in the types in which the source stores it. */
async function transformedModel(model: string, source: TensorSource): Promise<string> {
  const all = new Map<string, Weight>();
  for (const { index } of source.graph.blocks) {
    const weights = await blockWeights(source, index);
    const { groups } = await transformed(source, weights, index);
    expect(groups.some(({ alpha }) => alpha > 0)).toBe(true);
    for (const [name, tensor] of weights) all.set(name, tensor);
  }
  return await writeModel(
    `${model}-awq`,
    model,
    source.graph,
    async (name) => (all.get(name) as Tensor) ?? (await source.load(name, {})),
  );
}

test.each([
  ['grouped', {}, 3],
  ['multi-head', { num_key_value_heads: 4 }, 4],
  ['with biases', { attention_bias: true, mlp_bias: true, num_key_value_heads: 4 }, 4],
  ['tied, of 33 channels', { hidden_size: 33, head_dim: 6, tie_word_embeddings: true }, 3],
] as const)('a scaled model computes the same: %s', async (what, config, groups) => {
  const model = await writeRandomModel(join(scratch, what), { config, edit: lively });
  const before = await logitsOf(model);
  await withCheckpoint(model, async (source) => {
    expect(scalingGroups(source.graph.config, source.graph.blocks[0]!)).toHaveLength(groups);
    const after = await logitsOf(await transformedModel(model, source));
    expect(largestDifference(after, before)).toBeLessThan(1e-4);
    expect(largestDifference(after, before)).toBeGreaterThan(0);
  });
});

test('a norm that is stored in 16 bits is rounded to them before the layers behind it are scaled', async () => {
  const model = await writeRandomModel(join(scratch, 'half-norms'), { edit: lively });
  const before = await logitsOf(model);
  await withCheckpoint(model, async (source) => {
    const coarse = (name: string) => name.includes('norm');
    const half = { ...source, dtype: (name: string) => (coarse(name) ? 'bf16' : source.dtype(name)) };
    // Norms that bf16 holds exactly, so that the source's logits are those of the model.
    const exact = await writeModel(join(scratch, 'exact-norms'), model, source.graph, async (name) => {
      const tensor = await source.load(name, {});
      if (coarse(name)) tensor.write(truncated(tensor));
      return tensor;
    });
    await withCheckpoint(exact, async (rounded) => {
      const load = async (name: string) => await asStored(await rounded.load(name, {}), coarse(name));
      const after = await transformedModel(exact, { ...half, load } as TensorSource);
      expect(largestDifference(await logitsOf(after), await logitsOf(exact))).toBeLessThan(1e-4);
      expect(largestDifference(await logitsOf(exact), before)).toBeGreaterThan(1e-4);
    });
  });
});

test('the search is never worse than no scales on its metric, and helps where channels are loud', async () => {
  const model = await writeRandomModel(join(scratch, 'search'), { config: { num_key_value_heads: 4 }, edit: lively });
  await withCheckpoint(model, async (source) => {
    for (const loudness of [1, 20]) {
      const weights = await blockWeights(source, 0);
      const { groups } = await transformed(source, weights, 0, {}, { sample: sampleOf(source, 0, loudness) });
      expect(groups.map(({ layers }) => layers.length)).toEqual([3, 1, 2, 1]);
      for (const { alpha, error, plainError } of groups) {
        expect(error).toBeLessThanOrEqual(plainError);
        expect(alpha === 0).toBe(error === plainError);
        if (loudness > 1) expect(error).toBeLessThan(0.9 * plainError);
      }
      const one = await blockWeights(source, 0);
      const alone = await transformed(source, one, 0, { steps: 1 });
      expect(alone.groups.every(({ alpha }) => alpha === 0)).toBe(true);
      for (const [name, tensor] of one) {
        using original = await source.load(name, {});
        expect((tensor as Tensor).read()).toEqual(original.read());
      }
      for (const tensor of [...weights.values(), ...one.values()]) tensor.dispose();
    }
  });
});

test('clipping leaves what makes scores alone, lowers weights only, and is counted', async () => {
  const model = await writeRandomModel(join(scratch, 'clip'), { edit: lively });
  await withCheckpoint(model, async (source) => {
    const [plain, clipped] = [await blockWeights(source, 1), await blockWeights(source, 1)];
    const without = await transformed(source, plain, 1);
    const { clippedGroups, groups } = await transformed(source, clipped, 1, { clip: true });
    expect(groups).toEqual(without.groups);
    expect(without.clippedGroups).toBeUndefined();
    const names = Object.keys(clippedGroups!).map((name) => name.split('.').at(-2));
    expect(names.sort()).toEqual(['down_proj', 'gate_proj', 'o_proj', 'up_proj', 'v_proj']);
    for (const { name } of source.graph.blocks[1]!.linears) {
      const [a, b] = [plain, clipped].map((weights) => (weights.get(name) as Tensor).read() as Float32Array);
      expect(b!.every((value, i) => Math.abs(value) <= Math.abs(a![i]!) && value * a![i]! >= 0)).toBe(true);
      expect(b!.some((value, i) => value !== a![i])).toBe((clippedGroups![name] ?? 0) > 0);
    }
    expect(Object.values(clippedGroups!).reduce((sum, count) => sum + count, 0)).toBeGreaterThan(0);
    for (const tensor of [...plain.values(), ...clipped.values()]) tensor.dispose();
  });
});

test('scales that a layer could not store are not considered', async () => {
  // Weights at the edge of what f16 scales hold: any that grow would need another type, which the plan does not have.
  const edge = (name: string, values: Float32Array) => {
    lively(name, values);
    const largest = values.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
    if (name.includes('_proj')) for (let i = 0; i < values.length; i++) values[i]! *= (65504 * 3.4) / largest;
  };
  const model = await writeRandomModel(join(scratch, 'edge'), { edit: edge });
  await withCheckpoint(model, async (source) => {
    const weights = await blockWeights(source, 0);
    await transformed(source, weights, 0, { clip: true });
    for (const { name } of source.graph.blocks[0]!.linears) {
      const w = (weights.get(name) as Tensor).read() as Float32Array;
      const largest = w.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
      expect((2 * largest) / 7).toBeLessThanOrEqual(65504);
    }
    for (const tensor of weights.values()) tensor.dispose();
  });
});

test('options are checked, and an abort at any time gives the search’s memory back', async () => {
  const recipe = (transform: object) => ({
    solver: { method: 'rtn' },
    grid: { bits: 3, groupSize: 32 },
    transforms: [transform],
  });
  expect(normalizeRecipe(recipe({ method: 'awq' })).transforms).toEqual([
    { method: 'awq', steps: 20, clip: true, tokens: 2048 },
  ]);
  for (const bad of [{ steps: 0 }, { clip: 1 }, { tokens: 0 }, { alpha: 0.5 }])
    expect(() => normalizeRecipe(recipe({ method: 'awq', ...bad }))).toThrow(/recipe\.transforms\.0/);

  const model = await writeRandomModel(join(scratch, 'abort'), { edit: lively });
  await withCheckpoint(model, async (source) => {
    const before = await memoryAtRest();
    for (let n = 1; n < 400; n += 23) {
      const { signal } = new AbortController();
      let asked = 0;
      signal.throwIfAborted = () => {
        if (++asked >= n) throw 'enough';
      };
      const weights = await blockWeights(source, 0);
      const outcome = await transformed(source, weights, 0, { clip: true }, { signal }).catch(
        (error: unknown) => error,
      );
      for (const tensor of weights.values()) tensor.dispose();
      expect(outcome).toBe('enough');
      expect(await memoryAtRest(), `step ${n}`).toBe(before);
    }
  });
});

/** f32 values cut to the bits of bf16. */
const truncated = (tensor: Tensor): Float32Array =>
  new Float32Array(new Uint32Array((tensor.read() as Float32Array).buffer).map((bits) => bits & 0xffff0000).buffer);

async function asStored(tensor: Tensor, half: boolean): Promise<Tensor> {
  if (!half) return tensor;
  const bits = new Uint16Array(new Uint32Array((tensor.read() as Float32Array).buffer).map((b) => b >>> 16));
  const stored = Tensor.copyOf(bits, tensor.shape, 'bf16');
  tensor.dispose();
  return stored;
}
