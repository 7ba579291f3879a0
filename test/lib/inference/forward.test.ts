import { rm } from 'node:fs/promises';
import { describe, expect, it, vi } from 'vitest';
import { Random } from '../../../lib/calibration/index.js';
import { loadModel, type Model } from '../../../lib/inference/index.js';
import { nativeMemory } from '../../../lib/native/index.js';
import { Program } from '../../../lib/ops/index.js';
import { quantizeModel } from '../../../lib/pipeline/index.js';
import { memoryAtRest } from '../../memory-at-rest.js';
import { LlamaOracle } from '../../oracle/llama-oracle.js';
import { readOracleModel } from '../../oracle/read-weights.js';
import { describeWithShared, sharedModel, sharedModels } from '../../shared-material.js';
import { type TinyOptions, withTinyModel } from '../../tiny-checkpoint.js';

const llama3 = { rope_type: 'llama3', factor: 8, low_freq_factor: 1, high_freq_factor: 4 };
const features: Record<string, TinyOptions> = {
  'plain multi-head attention': {},
  'grouped keys and values': { config: { num_key_value_heads: 2 } },
  'a single key-value head': { config: { num_key_value_heads: 1 } },
  'a head size of its own': { config: { head_dim: 12, num_key_value_heads: 2 } },
  'biases in attention': { config: { attention_bias: true, num_key_value_heads: 2 } },
  'biases in the feed-forward': { config: { mlp_bias: true } },
  'a sliding window': {
    config: { model_type: 'mistral', architectures: ['MistralForCausalLM'], sliding_window: 5 },
  },
  'linear rope scaling': { config: { rope_scaling: { type: 'linear', factor: 4 } } },
  'llama3 rope scaling': {
    config: { head_dim: 16, rope_scaling: { ...llama3, original_max_position_embeddings: 32 }, rope_theta: 500 },
  },
  'llama3 rope parameters': {
    config: {
      head_dim: 16,
      rope_parameters: { ...llama3, original_max_position_embeddings: 32, rope_theta: 500 },
    },
  },
  'tied embeddings': { config: { tie_word_embeddings: true } },
  'tied embeddings stored as lm_head': { config: { tie_word_embeddings: true }, tiedName: 'lm_head.weight' },
  'odd sizes': {
    config: {
      hidden_size: 35,
      intermediate_size: 51,
      num_attention_heads: 3,
      num_key_value_heads: 1,
      head_dim: 6,
      vocab_size: 37,
    },
  },
  'half-precision weights': { dtype: 'F16', config: { attention_bias: true } },
  'bfloat16 weights': { dtype: 'BF16', config: { mlp_bias: true, tie_word_embeddings: true } },
};

const randomIds = (count: number, vocabulary: number, seed = 7) => {
  const random = new Random(seed);
  return Array.from({ length: count }, () => random.below(vocabulary));
};

/** Error energy over signal energy. */
function nmse(found: ArrayLike<number>, expected: ArrayLike<number>): number {
  expect(found.length).toBe(expected.length);
  let [error, signal] = [0, 0];
  for (let i = 0; i < expected.length; i++) {
    error += (found[i]! - expected[i]!) ** 2;
    signal += expected[i]! ** 2;
  }
  return error / signal;
}

async function logitsOf(model: Model, ids: readonly number[]): Promise<Float32Array> {
  using logits = await model.logits(ids);
  expect(logits.shape).toEqual([ids.length, model.config.vocabularySize]);
  return logits.read() as Float32Array;
}

describe('the forward against the fp64 oracle', () => {
  it.each(Object.entries(features))('%s', async (_, options) => {
    for (const seed of [1, 2])
      await withTinyModel({ ...options, seed }, async (dir) => {
        using model = await loadModel(dir);
        const { config, weights } = readOracleModel(dir);
        const ids = randomIds(40, model.config.vocabularySize, seed);
        const expected = new LlamaOracle(config, weights).forward(ids).flatMap((row) => [...row]);
        expect(nmse(await logitsOf(model, ids), expected)).toBeLessThan(1e-10);
      });
  });
});

describeWithShared('the forward of real models against the fp64 oracle', () => {
  it.each(sharedModels)('%s', async (name) => {
    using model = await loadModel(sharedModel(name));
    const { config, weights } = readOracleModel(sharedModel(name));
    const ids = randomIds(48, model.config.vocabularySize);
    const expected = new LlamaOracle(config, weights).forward(ids).flatMap((row) => [...row]);
    expect(nmse(await logitsOf(model, ids), expected)).toBeLessThan(1e-10);
  });

  it.each(sharedModels)('%s continues greedily as the oracle does', async (name) => {
    using model = await loadModel(sharedModel(name));
    const { config, weights } = readOracleModel(sharedModel(name));
    const prompt = model.tokenizer.encode('Once upon a time', { bos: true });
    const oracle = new LlamaOracle(config, weights);
    let logits = oracle.forward(prompt).at(-1)!;
    let compared = 0;
    let undecided = false;
    for await (const { token } of model.generate(prompt, { maxTokens: 64, ignoreEos: true })) {
      const [first, second] = [...logits.keys()].sort((a, b) => logits[b]! - logits[a]!) as [number, number];
      undecided = token !== first && logits[first]! - logits[second]! < 1e-3;
      if (undecided) break;
      expect(token).toBe(first);
      compared++;
      logits = oracle.step(token);
    }
    expect(undecided || compared === 64).toBe(true);
  });
});

describe('the bits of logits', () => {
  it('do not depend on the number of threads', async () => {
    await withTinyModel({ config: { hidden_size: 128, intermediate_size: 352, head_dim: 32 } }, async (dir) => {
      const ids = randomIds(50, 40);
      const [first, ...others] = await Promise.all(
        [1, 2, 3, 0].map(async (threads) => {
          using model = await loadModel(dir, { threads });
          return logitsOf(model, ids);
        }),
      );
      for (const other of others) expect(other).toEqual(first);
    });
  });
});

describe('a sequence computed in parts', () => {
  it.each(['grouped keys and values', 'a sliding window', 'llama3 rope scaling'])(
    'agrees whatever the parts: %s',
    async (feature) => {
      await withTinyModel(features[feature]!, async (dir) => {
        using model = await loadModel(dir);
        const ids = randomIds(31, model.config.vocabularySize);
        const whole = await logitsOf(model, ids);
        for (const chunk of [1, 7, 30]) {
          using session = model.session({ capacity: 31, chunk, logits: 'all' });
          for (const _ of ['first', 'again after a reset']) {
            const parts: number[] = [];
            for (let begin = 0; begin < ids.length; begin += chunk)
              parts.push(...(await session.append(ids.slice(begin, begin + chunk))).read());
            expect(session.position).toBe(31);
            expect(nmse(parts, whole)).toBeLessThan(1e-10);
            session.reset();
          }
        }
      });
    },
  );

  it('gives the last row alone where only that is asked for, on either thread', async () => {
    await withTinyModel({}, async (dir) => {
      using model = await loadModel(dir);
      const ids = randomIds(9, model.config.vocabularySize);
      const whole = await logitsOf(model, ids);
      using session = model.session({ capacity: 9, chunk: 8, logits: 'last' });
      expect((await session.append(ids.slice(0, 8))).shape).toEqual([1, 40]);
      const last = session.appendSync(ids[8]!).read();
      expect(nmse(last, whole.subarray(8 * 40))).toBeLessThan(1e-10);
      expect(() => session.appendSync(1)).toThrow(expect.objectContaining({ code: 'LUTRA_E_SHAPE' }));
    });
  });
});

describe('batchInvariant', () => {
  it.each([
    'plain multi-head attention',
    'a sliding window',
    'biases in attention',
    'odd sizes',
    'half-precision weights',
  ])('gives the same logits at once, in parts and token by token: %s', async (feature) => {
    const { config, ...options } = features[feature]!;
    const wide = feature === 'odd sizes' ? {} : { hidden_size: 96, intermediate_size: 160, num_key_value_heads: 2 };
    await withTinyModel({ ...options, config: { ...config, ...wide } }, async (dir) => {
      await withQuantized(dir, async (quantized) => {
        for (const directory of [dir, quantized])
          for (const mode of ['exact', 'accurate', 'fast'] as const) {
            using model = await loadModel(directory, { mode, batchInvariant: true });
            expect(model.batchInvariant).toBe(true);
            const ids = randomIds(41, model.config.vocabularySize);
            const whole = await logitsOf(model, ids);
            for (const chunk of [1, 7, 20]) {
              using session = model.session({ capacity: 41, chunk, logits: 'all' });
              const parts: number[] = [];
              for (let begin = 0; begin < ids.length; begin += chunk)
                parts.push(...(await session.append(ids.slice(begin, begin + chunk))).read());
              expect(Float32Array.from(parts)).toEqual(whole);
            }
          }
      });
    });
  });
});

/** The same model, quantized, for as long as `body` runs. */
async function withQuantized(dir: string, body: (quantized: string) => Promise<void>): Promise<void> {
  const out = `${dir}-quantized`;
  await quantizeModel({ model: dir, out, recipe: { method: 'rtn', bits: 3, groupSize: 16 } });
  try {
    await body(out);
  } finally {
    await rm(out, { recursive: true });
  }
}

it('leaves no memory behind where a step cannot be recorded', async () => {
  await withTinyModel({}, async (dir) => {
    using model = await loadModel(dir);
    const refused = vi.spyOn(Program.prototype, 'swiglu').mockImplementation(() => {
      throw new Error('refused');
    });
    try {
      const before = await memoryAtRest();
      await expect(model.logits([1, 2, 3])).rejects.toThrow('refused');
      expect(nativeMemory()).toBe(before);
    } finally {
      refused.mockRestore();
    }
  });
});
