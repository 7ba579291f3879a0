import { rmSync } from 'node:fs';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type GeneratedToken, type GenerationOptions, loadModel, type Model } from '../../../lib/inference/index.js';
import { describeWithShared, sharedModel } from '../../shared-material.js';
import { withTinyModel, writeTinyModel } from '../../tiny-checkpoint.js';

async function collect(model: Model, prompt: string | number[], options: GenerationOptions = {}) {
  const pieces: GeneratedToken[] = [];
  for await (const piece of model.generate(prompt, options)) pieces.push(piece);
  return pieces;
}
const tokens = (pieces: GeneratedToken[]) => pieces.map(({ token }) => token);
const text = (pieces: GeneratedToken[]) => pieces.map((piece) => piece.text).join('');

describe('generate', () => {
  let dir: string;
  let model: Model;
  beforeAll(async () => {
    dir = writeTinyModel();
    model = await loadModel(dir);
  });
  afterAll(() => {
    model.dispose();
    rmSync(dir, { recursive: true });
  });

  it('stops at maxTokens and says so on the last token only', async () => {
    const pieces = await collect(model, 'abc', { maxTokens: 5, ignoreEos: true });
    expect(pieces.map(({ finishReason }) => finishReason)).toEqual([null, null, null, null, 'length']);
  });

  it('stops at a token that ends a text', async () => {
    // Greedy text of a random model: one of its tokens becomes an end in config.json.
    const free = tokens(await collect(model, 'abc', { maxTokens: 8, ignoreEos: true }));
    const end = free[3]!;
    await withTinyModel({ config: { eos_token_id: [2, end] } }, async (other) => {
      using ending = await loadModel(other);
      const pieces = await collect(ending, 'abc', { maxTokens: 8 });
      expect(tokens(pieces)).toEqual(free.slice(0, free.indexOf(end) + 1));
      expect(pieces.at(-1)!.finishReason).toBe('eos');
      expect(tokens(await collect(ending, 'abc', { maxTokens: 8, ignoreEos: true }))).toEqual(free);
    });
  });

  it('fills the context and stops', async () => {
    const { context } = model.config;
    const prompt = Array.from({ length: context - 3 }, (_, i) => 3 + (i % 30));
    const pieces = await collect(model, prompt, { maxTokens: 100, ignoreEos: true });
    expect(pieces).toHaveLength(4);
    expect(pieces.at(-1)!.finishReason).toBe('context');
    const full = await collect(model, [...prompt, 3, 3, 3], { ignoreEos: true });
    expect(full.map(({ finishReason }) => finishReason)).toEqual(['context']);
  });

  it('depends on the seed at a temperature', async () => {
    const sample = (seed: number) => collect(model, 'abc', { temperature: 1.5, seed, maxTokens: 30, ignoreEos: true });
    expect(tokens(await sample(4))).toEqual(tokens(await sample(4)));
    expect(tokens(await sample(4))).not.toEqual(tokens(await sample(5)));
  });

  it('runs several texts at once without mixing them', async () => {
    const prompts = ['abc', 'hello', 'zz', 'q'];
    const options = { maxTokens: 20, ignoreEos: true };
    const alone: number[][] = [];
    for (const prompt of prompts) alone.push(tokens(await collect(model, prompt, options)));
    const together = await Promise.all(prompts.map((prompt) => collect(model, prompt, options)));
    expect(together.map(tokens)).toEqual(alone);
  });

  it('puts BOS in front of text as the tokenizer does, or as it is told', async () => {
    const options = { maxTokens: 6, ignoreEos: true };
    const [withBos, without] = [
      [1, 3, 4, 5],
      [3, 4, 5],
    ];
    expect(await collect(model, 'abc', options)).toEqual(await collect(model, withBos!, options));
    expect(await collect(model, 'abc', { ...options, bos: false })).toEqual(await collect(model, without!, options));
  });

  it('joins to what decoding all tokens gives', async () => {
    const pieces = await collect(model, 'abc', { maxTokens: 30, temperature: 1, seed: 1, ignoreEos: true });
    expect(text(pieces)).toBe(model.tokenizer.decode(tokens(pieces)));
  });

  it('rejects with the reason of an abort, before it starts and on the way', async () => {
    const reason = new Error('enough');
    await expect(collect(model, 'abc', { signal: AbortSignal.abort(reason) })).rejects.toBe(reason);
    const controller = new AbortController();
    const iterate = async () => {
      for await (const { token } of model.generate('abc', { signal: controller.signal, ignoreEos: true }))
        if (token >= 0) controller.abort(reason);
    };
    await expect(iterate()).rejects.toBe(reason);
    const later = AbortSignal.timeout(5);
    const endless = async () => {
      for (;;) await collect(model, 'abc', { signal: later, maxTokens: 60, ignoreEos: true });
    };
    await expect(endless()).rejects.toMatchObject({ name: 'TimeoutError' });
  });

  it('refuses unusable prompts and options at once', () => {
    const refused = (where: string) => expect.objectContaining({ code: 'LUTRA_E_OPTION', where });
    expect(() => model.generate([])).toThrow(refused('prompt'));
    expect(() => model.generate([40])).toThrow(refused('prompt'));
    expect(() => model.generate(42 as unknown as string)).toThrow(refused('prompt'));
    expect(() => model.generate([1.5])).toThrow(refused('prompt'));
    expect(() => model.generate('a'.repeat(200))).toThrow(refused('prompt'));
    expect(() => model.generate('a', { maxTokens: 0 })).toThrow(refused('maxTokens'));
    expect(() => model.generate('a', { temperature: -1 })).toThrow(refused('temperature'));
  });
});

describeWithShared('generate with a real model', () => {
  it('goes on after a prompt with the space that belongs there, until the story ends', async () => {
    using model = await loadModel(sharedModel('stories260k'));
    const prompt = 'Once upon a time, there was a little';
    const pieces = await collect(model, prompt, { maxTokens: 400 });
    const ids = [...model.tokenizer.encode(prompt, { bos: true }), ...tokens(pieces)];
    expect(prompt + text(pieces)).toBe(model.tokenizer.decode(ids));
    expect(text(pieces)).toMatch(/^ [a-z]+ /);
  });

  it('stops at the end of a story', async () => {
    using model = await loadModel(sharedModel('demo'));
    const pieces = await collect(model, 'Once upon a time', { maxTokens: 240 });
    expect(pieces.at(-1)).toMatchObject({ token: 0, text: '', finishReason: 'eos' });
    expect(tokens(pieces).indexOf(0)).toBe(pieces.length - 1);
  });
});
