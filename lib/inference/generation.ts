import { setImmediate as nextTurn } from 'node:timers/promises';
import { lutraError } from '../errors.js';
import type { Tensor } from '../tensor/index.js';
import { checkIds } from './ids.js';
import type { Model } from './model.js';
import { Sampler } from './sampler.js';
import type { SamplingOptions } from './sampling-options.js';
import { prefillChunk, Session } from './session.js';

export interface GenerationOptions extends SamplingOptions {
  /** Tokens to generate at most; 256 by default. */
  maxTokens?: number | undefined;
  /** Whether a text prompt begins with BOS; as the tokenizer does by default. */
  bos?: boolean | undefined;
  /** Goes on after a token that ends a text. */
  ignoreEos?: boolean | undefined;
  signal?: AbortSignal | undefined;
}

/** Why a text ended: a token that ends texts, `maxTokens`, or no position left in the model's context. */
export type FinishReason = 'eos' | 'length' | 'context';

export interface GeneratedToken {
  readonly token: number;
  /** What the token adds to the text; empty for a part of a character and for special tokens. */
  readonly text: string;
  /** Set on the last token only. */
  readonly finishReason: FinishReason | null;
}

/** Decode steps faster than this run on the calling thread, in milliseconds: going off it would cost more than it frees. */
const shortStep = 5;

/** `Model.generate`: checks at once, computes when iterated. */
export function generate(
  model: Model,
  prompt: string | readonly number[],
  options: GenerationOptions,
): AsyncGenerator<GeneratedToken, void, undefined> {
  const { maxTokens = 256, bos = model.tokenizer.addsBos } = options;
  if (!Number.isSafeInteger(maxTokens) || maxTokens < 1)
    throw lutraError('LUTRA_E_OPTION', {
      message: 'unusable option',
      where: 'maxTokens',
      found: String(maxTokens),
      expected: 'a whole number, at least 1',
    });
  if (typeof prompt !== 'string' && !Array.isArray(prompt) && !ArrayBuffer.isView(prompt))
    throw lutraError('LUTRA_E_OPTION', {
      message: 'a prompt is a text or an array of ids',
      where: 'prompt',
      found: typeof prompt,
    });
  const ids = typeof prompt === 'string' ? model.tokenizer.encode(prompt, { bos }) : [...prompt];
  checkIds(model.config, ids, 'prompt');
  return run(model, ids, maxTokens, new Sampler(options), options);
}

async function* run(
  model: Model,
  ids: readonly number[],
  maxTokens: number,
  sampler: Sampler,
  options: GenerationOptions,
): AsyncGenerator<GeneratedToken, void, undefined> {
  const { context } = model.config;
  const { signal } = options;
  signal?.throwIfAborted();
  const capacity = Math.min(context, ids.length + maxTokens);
  // On a device the largest logit is looked for there, so that no more than its id comes back.
  const answer = model.device !== 'cpu' && sampler.greedy ? 'top' : 'last';
  using session = new Session(model, { capacity, chunk: Math.min(prefillChunk, ids.length), logits: answer });
  const stream = model.tokenizer.stream(ids);
  const seen = new Set(ids);
  let logits = await prefill(session, ids, signal);
  let quick = false;
  for (let count = 1; ; count++) {
    const token = answer === 'top' ? logits.read()[0]! : sampler.next(logits.read() as Float32Array, seen);
    seen.add(token);
    let finishReason: FinishReason | null = null;
    if (!options.ignoreEos && model.eosIds.has(token)) finishReason = 'eos';
    else if (count === maxTokens) finishReason = 'length';
    else if (session.position === context) finishReason = 'context';
    const text = stream.push(token);
    yield { token, text: finishReason ? text + stream.end() : text, finishReason };
    if (finishReason) return;
    // Steps on this thread would otherwise keep timers, and so abort signals, from being seen.
    if (quick) await nextTurn();
    signal?.throwIfAborted();
    const started = performance.now();
    logits = quick ? session.appendSync(token) : await session.append([token], signal);
    quick = performance.now() - started < shortStep;
  }
}

async function prefill(session: Session, ids: readonly number[], signal: AbortSignal | undefined): Promise<Tensor> {
  let begin = 0;
  for (; begin + prefillChunk < ids.length; begin += prefillChunk)
    await session.append(ids.slice(begin, begin + prefillChunk), signal);
  return session.append(ids.slice(begin), signal);
}
