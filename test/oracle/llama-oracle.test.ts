import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { loadTokenizer } from '../../lib/inference/index.js';
import { describeWithShared, sharedModel, sharedText } from '../shared-material.js';
import { LlamaOracle } from './llama-oracle.js';
import { fromBfloat16, fromHalf, readOracleModel } from './read-weights.js';

describe('element types of the oracle', () => {
  it('decodes halves and bfloat16', () => {
    expect([0x3c00, 0xc000, 0x0001, 0x7bff, 0x0400].map(fromHalf)).toEqual([1, -2, 2 ** -24, 65504, 2 ** -14]);
    expect([0x3f80, 0xc000, 0x7f7f].map(fromBfloat16)).toEqual([1, -2, (2 - 2 ** -7) * 2 ** 127]);
  });
});

describeWithShared('the oracle on real models', () => {
  /** A perplexity of models/README.md, by its convention; the fastest model is enough to trust the oracle. */
  it.each([{ model: 'babyllama-tok361', limit: 8192, context: 256, perplexity: 1.679 }] as const)(
    'agrees with the independent perplexity of $model',
    async (row) => {
      const tokenizer = await loadTokenizer(sharedModel(row.model));
      const { config, weights } = readOracleModel(sharedModel(row.model));
      const stories = readFileSync(sharedText('tinystories-evaluation.txt'), 'utf8').split('<|endoftext|>');
      let [count, targets, loss] = [0, 0, 0];
      for (let index = 0; count <= row.limit; index++) {
        const ids = tokenizer.encode(stories[index]!.trim(), { bos: true });
        count += ids.length;
        const cut = ids.slice(0, row.context);
        const logits = new LlamaOracle(config, weights).forward(cut.slice(0, -1));
        cut.slice(1).forEach((target, t) => {
          if (target === tokenizer.unknownId) return;
          targets++;
          loss += crossEntropy(logits[t]!, target);
        });
      }
      expect(Math.exp(loss / targets) / row.perplexity).toBeCloseTo(1, 3);
    },
  );
});

function crossEntropy(logits: Float64Array, target: number): number {
  const largest = logits.reduce((a, b) => Math.max(a, b));
  const total = logits.reduce((sum, logit) => sum + Math.exp(logit - largest), 0);
  return Math.log(total) + largest - logits[target]!;
}
