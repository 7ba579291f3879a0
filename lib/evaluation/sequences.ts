import { setImmediate as nextTurn } from 'node:timers/promises';
import { lutraError } from '../errors.js';
import type { Tokenizer } from '../tokenizer/index.js';

export type Convention = 'documents' | 'windows';

/** One stretch of text that is computed from position 0 on. */
export interface Sequence {
  /** Inputs; the last id of the stretch is only predicted. */
  readonly ids: readonly number[];
  /** targets[t] follows ids[t]; -1 where it is not counted. */
  readonly targets: readonly number[];
}

export interface SequenceOptions {
  readonly separator: string | undefined;
  /** Ids of a sequence at most. */
  readonly context: number;
  /** Stops after the document or window with which the count of ids, BOS included and uncut, exceeds this. */
  readonly maxTokens: number;
  readonly signal?: AbortSignal | undefined;
}

/** JavaScript is not kept busy with documents for longer, in milliseconds. */
const patience = 20;

/**
 * Convention `documents`: the text is split at the separator; every document is trimmed, gets one BOS in front and no EOS,
 * and is cut at the context. Targets that are the tokenizer's unknown token are not counted.
 */
export async function documentSequences(
  text: string,
  tokenizer: Tokenizer,
  options: SequenceOptions,
): Promise<Sequence[]> {
  const { separator, context, maxTokens, signal } = options;
  if (!separator)
    throw lutraError('LUTRA_E_OPTION', {
      message: "convention 'documents' needs the separator between documents",
      where: 'evaluate.separator',
    });
  const sequences: Sequence[] = [];
  let count = 0;
  let since = performance.now();
  for (const document of text.split(separator).map((piece) => piece.trim())) {
    if (count > maxTokens) break;
    if (document === '') continue;
    const ids = tokenizer.encode(document, { bos: true });
    count += ids.length;
    const targets = ids.slice(1, context).map((id) => (id === tokenizer.unknownId ? -1 : id));
    if (targets.length > 0) sequences.push({ ids: ids.slice(0, targets.length), targets });
    if (performance.now() - since < patience) continue;
    await nextTurn();
    signal?.throwIfAborted();
    since = performance.now();
  }
  return sequences;
}

/**
 * Convention `windows`: the text as one string with one BOS, cut into windows of `context` ids; the tail is dropped.
 * One string is tokenized in one go, which keeps JavaScript busy for a second or so a megabyte.
 */
export async function windowSequences(
  text: string,
  tokenizer: Tokenizer,
  options: SequenceOptions,
): Promise<Sequence[]> {
  const { context, maxTokens, signal } = options;
  signal?.throwIfAborted();
  const ids = tokenizer.encode(text, { bos: true });
  const sequences: Sequence[] = [];
  for (let begin = 0; begin + context <= ids.length && begin <= maxTokens; begin += context)
    sequences.push({ ids: ids.slice(begin, begin + context - 1), targets: ids.slice(begin + 1, begin + context) });
  return sequences;
}
