import { readFileSync, rmSync, writeFileSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type EvaluationOptions, evaluate } from '../../../lib/evaluation/index.js';
import { loadModel, type Model } from '../../../lib/inference/index.js';
import { LlamaOracle } from '../../oracle/llama-oracle.js';
import { readOracleModel } from '../../oracle/read-weights.js';
import { describeWithShared, sharedModel, sharedText } from '../../shared-material.js';
import { withTinyModel, writeTinyModel } from '../../tiny-checkpoint.js';

const logSoftmax = (logits: Float64Array) => {
  const largest = logits.reduce((a, b) => Math.max(a, b));
  const total = Math.log(logits.reduce((sum, logit) => sum + Math.exp(logit - largest), 0)) + largest;
  return logits.map((logit) => logit - total);
};
const argmax = (values: Float64Array) => values.indexOf(values.reduce((a, b) => Math.max(a, b)));

/** Losses, divergences and agreements of every counted position of sequences of ids, by the oracle. */
function byOracle(dir: string, referenceDir: string, sequences: number[][], unknownId: number | null) {
  const [model, reference] = [readOracleModel(dir), readOracleModel(referenceDir)];
  const found = { losses: [] as number[], divergences: [] as number[], agreements: 0 };
  for (const ids of sequences) {
    const q = new LlamaOracle(model.config, model.weights).forward(ids.slice(0, -1)).map(logSoftmax);
    const p = new LlamaOracle(reference.config, reference.weights).forward(ids.slice(0, -1)).map(logSoftmax);
    ids.slice(1).forEach((target, t) => {
      if (target === unknownId) return;
      found.losses.push(-q[t]![target]!);
      found.divergences.push(p[t]!.reduce((sum, logP, v) => sum + Math.exp(logP) * (logP - q[t]![v]!), 0));
      if (argmax(p[t]!) === argmax(q[t]!)) found.agreements++;
    });
  }
  return found;
}
const mean = (values: number[]) => values.reduce((sum, value) => sum + value, 0) / values.length;

describe('evaluate', () => {
  let [dir, otherDir] = ['', ''];
  let model: Model;
  let other: Model;
  beforeAll(async () => {
    dir = writeTinyModel({ seed: 1 });
    otherDir = writeTinyModel({ seed: 2 });
    model = await loadModel(dir);
    other = await loadModel(otherDir);
  });
  afterAll(() => {
    model.dispose();
    other.dispose();
    rmSync(dir, { recursive: true });
    rmSync(otherDir, { recursive: true });
  });

  it('by documents equals the oracle: trimmed, BOS in front, cut, unknown targets left out', async () => {
    const text = '\n abcabc \n@@ qwerty#uiop @@\n\n@@hello@@x@@  @@jjjjjjjjjjjjjjjj';
    const documents = ['abcabc', 'qwerty#uiop', 'hello', 'x', 'jjjjjjjjjjjjjjjj'];
    const ids = documents.map((document) => model.tokenizer.encode(document, { bos: true }).slice(0, 12));
    expect(ids.map((sequence) => sequence[0])).toEqual([1, 1, 1, 1, 1]);
    expect(ids[1]).toContain(0);
    const expected = byOracle(dir, otherDir, ids, 0);
    const found = await evaluate(model, { text, separator: '@@', context: 12, reference: other });
    expect(found).toMatchObject({ convention: 'documents', documents: 5, context: 12, mode: 'exact' });
    expect(found.tokens).toBe(expected.losses.length);
    expect(found.perplexity / Math.exp(mean(expected.losses))).toBeCloseTo(1, 5);
    expect(found.kl!.mean).toBeCloseTo(mean(expected.divergences), 5);
    expect(found.kl!.max).toBeCloseTo(Math.max(...expected.divergences), 5);
    expect(found.top1Agreement).toBe(expected.agreements / expected.losses.length);
    expect(found.kl!.p99).toBeLessThanOrEqual(found.kl!.p999);
    expect(found.kl!.p999).toBeLessThanOrEqual(found.kl!.max);
    expect(found.textSha256).toMatch(/^[0-9a-f]{64}$/);
  });

  it('by windows equals the oracle: one BOS, whole windows, the tail dropped', async () => {
    const text = Array.from({ length: 100 }, (_, i) => 'abcdefghij'[(i * i + 3 * i) % 10]).join('');
    const ids = model.tokenizer.encode(text, { bos: true });
    const windows = [0, 1, 2, 3, 4].map((i) => ids.slice(i * 20, i * 20 + 20));
    const expected = byOracle(dir, otherDir, windows, null);
    const found = await evaluate(model, { text, context: 20, reference: other });
    expect(found).toMatchObject({ convention: 'windows', documents: 5, tokens: 5 * 19 });
    expect(found.perplexity / Math.exp(mean(expected.losses))).toBeCloseTo(1, 5);
    expect(found.kl!.mean).toBeCloseTo(mean(expected.divergences), 5);
  });

  it('finds no divergence of a model from itself', async () => {
    const found = await evaluate(model, { text: 'abcdefgh@@ijklmnop', separator: '@@', reference: model });
    expect(found.top1Agreement).toBe(1);
    expect(found.kl!.mean).toBeCloseTo(0, 12);
    expect(found.kl!.max).toBeCloseTo(0, 12);
  });

  it('stops after the document that brings the count of uncut ids above the limit', async () => {
    const text = ['abcd', 'abcde', 'abc', 'abcdef'].join('@@');
    const documents = async (maxTokens: number) =>
      (await evaluate(model, { text, separator: '@@', context: 4, maxTokens })).documents;
    // Uncut with BOS: 5, 11, 15, 22.
    expect(await Promise.all([0, 4, 5, 10, 11, 14, 15, 100].map(documents))).toEqual([1, 1, 2, 2, 3, 3, 4, 4]);
  });

  it('reports progress up to the whole and nothing after it', async () => {
    const events: number[] = [];
    const onProgress: EvaluationOptions['onProgress'] = ({ done, total }) => events.push(done / total);
    await evaluate(model, { text: 'abc@@defgh@@ij', separator: '@@', onProgress });
    expect(events).toHaveLength(3);
    expect(events).toEqual([...events].sort((a, b) => a - b));
    expect(events.at(-1)).toBe(1);
  });

  it('refuses options that it cannot use, and texts without a target', async () => {
    const refused = (where: string) => expect.objectContaining({ code: 'LUTRA_E_OPTION', where });
    const cases: [string, Partial<EvaluationOptions>][] = [
      ['evaluate.separator', { convention: 'documents' }],
      ['evaluate.separator', { separator: '@@' }],
      ['evaluate.separator', { text: 'abc\n\ndef', separator: '\\n\\n' }],
      ['evaluate.separator', { text: 'abc@@def', separator: '@@', convention: 'windows' }],
      ['evaluate.text', { text: undefined as unknown as string }],
      ['evaluate.convention', { convention: 'stories' as 'documents' }],
      ['evaluate.context', { context: 1 }],
      ['evaluate.context', { context: 65 }],
      ['evaluate.maxTokens', { maxTokens: -1 }],
      ['evaluate.mode', { mode: 'best' as 'exact' }],
      ['evaluate.text', { text: '', separator: '@@' }],
      ['evaluate.text', { text: 'abc', context: 20 }],
    ];
    for (const [where, options] of cases)
      await expect(evaluate(model, { text: 'abc', ...options })).rejects.toEqual(refused(where));
  });

  it('refuses a reference of another vocabulary', async () => {
    await withTinyModel({ config: { vocab_size: 41 } }, async (larger) => {
      using reference = await loadModel(larger);
      await expect(evaluate(model, { text: 'abc@@def', separator: '@@', reference })).rejects.toMatchObject({
        code: 'LUTRA_E_SHAPE',
      });
    });
  });

  it('refuses logits that are not numbers, of the model and of the reference', async () => {
    await withTinyModel({}, async (damaged) => {
      const path = join(damaged, 'model.safetensors');
      const bytes = readFileSync(path);
      bytes.writeFloatLE(Number.NaN, bytes.length - 4);
      writeFileSync(path, bytes);
      using broken = await loadModel(damaged);
      const refused = (where: string) => expect.objectContaining({ code: 'LUTRA_E_NON_FINITE', where });
      const options = { text: 'abc@@def', separator: '@@' };
      await expect(evaluate(broken, options)).rejects.toEqual(refused('evaluate.model'));
      await expect(evaluate(model, { ...options, reference: broken })).rejects.toEqual(refused('evaluate.reference'));
    });
  });

  it('rejects with the reason of an abort', async () => {
    const reason = new Error('enough');
    const controller = new AbortController();
    const text = 'abcdefgh@@'.repeat(50);
    const running = evaluate(model, {
      text,
      separator: '@@',
      signal: controller.signal,
      onProgress: () => controller.abort(reason),
    });
    await expect(running).rejects.toBe(reason);
    await expect(evaluate(model, { text, separator: '@@', signal: AbortSignal.abort(reason) })).rejects.toBe(reason);
    const tokenizing = evaluate(model, { text: text.repeat(2000), separator: '@@', signal: AbortSignal.timeout(30) });
    await expect(tokenizing).rejects.toMatchObject({ name: 'TimeoutError' });
  });
});

describeWithShared('perplexities of real models', () => {
  /** Numbers of models/README.md, from an independent fp64 forward. */
  it.each([
    { name: 'stories260k', maxTokens: 8192, tokens: 8357, documents: 27, perplexity: 3.366 },
    { name: 'babyllama-tok361', maxTokens: 8192, tokens: 3060, documents: 12, perplexity: 1.679 },
    { name: 'tinystories-656k', maxTokens: 6000, tokens: 5967, documents: 41, perplexity: 16.36 },
    { name: 'demo', maxTokens: 1500, tokens: 1348, documents: 7, perplexity: 5.277 },
  ] as const)('$name', async ({ name, maxTokens, tokens, documents, perplexity }) => {
    using model = await loadModel(sharedModel(name));
    const text = await readFile(sharedText('tinystories-evaluation.txt'), 'utf8');
    const found = await evaluate(model, { text, separator: '<|endoftext|>', maxTokens });
    expect(found).toMatchObject({ tokens, documents, kl: null, top1Agreement: null, bitsPerWeight: null });
    expect(Math.abs(found.perplexity / perplexity - 1)).toBeLessThan(1e-3);
  });
});
