import { setImmediate as yieldToEvents } from 'node:timers/promises';
import { lutraError } from '../errors.js';
import type { Tokenizer } from '../tokenizer/index.js';
import type { Corpus } from './corpus.js';
import { Random } from './random.js';

/** Longest piece of text that is tokenized at once, in UTF-16 units: some milliseconds. */
const pieceLength = 2 ** 14;
/** JavaScript is not kept busy for longer, in milliseconds. */
const patience = 20;

/**
 * The ids of all documents, one after another, each begun by BOS. A document longer than 16,384 characters is tokenized in
 * pieces cut after a line's end (or a blank, where a line is that long), so that the event loop turns meanwhile; a
 * tokenizer that looks across lines may see such a seam.
 */
export async function tokenizeCorpus(corpus: Corpus, tokenizer: Tokenizer, signal?: AbortSignal): Promise<Int32Array> {
  const ids: number[] = [];
  let since = performance.now();
  for (const document of corpus.documents) {
    let bos = tokenizer.bosId !== null;
    for (const piece of pieces(document)) {
      signal?.throwIfAborted();
      for (const id of tokenizer.encode(piece, { bos })) ids.push(id);
      bos = false;
      if (performance.now() - since < patience) continue;
      await yieldToEvents();
      since = performance.now();
    }
  }
  signal?.throwIfAborted();
  return Int32Array.from(ids);
}

function* pieces(text: string): Generator<string> {
  for (let begin = 0; begin < text.length; ) {
    const end = pieceEnd(text, begin);
    yield text.slice(begin, end);
    begin = end;
  }
}

function pieceEnd(text: string, begin: number): number {
  const limit = begin + pieceLength;
  if (limit >= text.length) return text.length;
  for (const mark of ['\n', ' ']) {
    const found = text.lastIndexOf(mark, limit - 1);
    if (found > begin) return mark === '\n' ? found + 1 : found;
  }
  // Never between the halves of a surrogate pair.
  const code = text.charCodeAt(limit - 1);
  return code >= 0xd800 && code < 0xdc00 ? limit - 1 : limit;
}

export interface WindowOptions {
  /** Number of windows. */
  samples: number;
  /** Tokens of each. */
  sequenceLength: number;
  seed: number;
}

/**
 * Windows of consecutive tokens that begin anywhere in the stream, drawn independently and with every beginning equally
 * likely: the calibration of GPTQ (arXiv 2210.17323, section 4) and of the methods after it.
 *
 * @throws `LUTRA_E_CALIBRATION_TOO_SHORT` where the stream is shorter than one window.
 */
export function drawWindows(tokens: Int32Array, options: WindowOptions, where: string): Int32Array[] {
  const { samples, sequenceLength, seed } = options;
  if (tokens.length < sequenceLength)
    throw lutraError('LUTRA_E_CALIBRATION_TOO_SHORT', {
      message: 'the calibration text is shorter than one window',
      where,
      found: `${tokens.length} tokens`,
      expected: `at least ${sequenceLength}`,
      hint: 'Give a longer text or a smaller sequenceLength.',
    });
  const random = new Random(seed);
  return Array.from({ length: samples }, () => {
    const begin = random.below(tokens.length - sequenceLength + 1);
    return tokens.slice(begin, begin + sequenceLength);
  });
}
