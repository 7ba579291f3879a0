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
 *
 * @param onProgress is told characters done and in all, now and then and at the end
 */
export async function tokenizeCorpus(
  corpus: Corpus,
  tokenizer: Tokenizer,
  signal?: AbortSignal,
  onProgress: (done: number, total: number) => void = () => {},
): Promise<Int32Array> {
  const ids: Int32Array[] = [];
  const total = corpus.documents.reduce((sum, { length }) => sum + length, 0);
  let done = 0;
  let since = performance.now();
  for (const document of corpus.documents) {
    let bos = tokenizer.bosId !== null;
    for (const piece of pieces(document)) {
      signal?.throwIfAborted();
      ids.push(Int32Array.from(tokenizer.encode(piece, { bos })));
      bos = false;
      done += piece.length;
      if (performance.now() - since < patience) continue;
      onProgress(done, total);
      await yieldToEvents();
      since = performance.now();
    }
  }
  signal?.throwIfAborted();
  onProgress(total, total);
  return joined(ids);
}

function joined(parts: readonly Int32Array[]): Int32Array {
  const all = new Int32Array(parts.reduce((sum, { length }) => sum + length, 0));
  let at = 0;
  for (const part of parts) {
    all.set(part, at);
    at += part.length;
  }
  return all;
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
  return drawBeginnings(tokens, options, new Random(options.seed), where).map((begin) =>
    tokens.slice(begin, begin + options.sequenceLength),
  );
}

function drawBeginnings(
  tokens: Int32Array,
  { samples, sequenceLength }: WindowOptions,
  random: Random,
  where: string,
): number[] {
  if (tokens.length < sequenceLength)
    throw lutraError('LUTRA_E_CALIBRATION_TOO_SHORT', {
      message: 'the calibration text is shorter than one window',
      where,
      found: `${tokens.length} tokens`,
      expected: `at least ${sequenceLength}`,
      hint: 'Give a longer text or a smaller sequenceLength.',
    });
  return Array.from({ length: samples }, () => random.below(tokens.length - sequenceLength + 1));
}

/**
 * Windows that share no token with those that `drawWindows` gives for the same options, every such beginning equally likely:
 * what a method makes of its calibration can be checked on them. They may overlap each other.
 *
 * @throws `LUTRA_E_CALIBRATION_TOO_SHORT` where the calibration windows leave no room for one.
 */
export function drawHeldOut(tokens: Int32Array, options: WindowOptions, count: number, where: string): Int32Array[] {
  if (count === 0) return [];
  const { sequenceLength, seed } = options;
  const random = new Random(seed);
  const gaps = freeBeginnings(drawBeginnings(tokens, options, random, where), tokens.length, sequenceLength);
  const free = gaps.reduce((sum, { size }) => sum + size, 0);
  if (free === 0)
    throw lutraError('LUTRA_E_CALIBRATION_TOO_SHORT', {
      message: 'the calibration windows leave no room for one that is held out',
      where,
      found: `${tokens.length} tokens`,
      hint: 'Give a longer text, fewer samples or a smaller sequenceLength.',
    });
  // Goes on where the calibration windows' draws ended.
  return Array.from({ length: count }, () => {
    const begin = beginningAt(gaps, random.below(free));
    return tokens.slice(begin, begin + sequenceLength);
  });
}

interface Gap {
  /** The first of `size` beginnings in a row. */
  first: number;
  size: number;
}

/** Where windows may begin that touch none of the drawn ones: after the end of one, a window's length before the next. */
function freeBeginnings(drawn: readonly number[], tokens: number, sequenceLength: number): Gap[] {
  const ascending = [...drawn].sort((a, b) => a - b);
  return [...ascending, tokens].flatMap((next, i) => {
    const previous = ascending[i - 1];
    const first = previous === undefined ? 0 : previous + sequenceLength;
    const size = next - sequenceLength - first + 1;
    return size > 0 ? [{ first, size }] : [];
  });
}

function beginningAt(gaps: readonly Gap[], place: number): number {
  let rest = place;
  for (const { first, size } of gaps) {
    if (rest < size) return first + rest;
    rest -= size;
  }
  throw lutraError('LUTRA_E_INTERNAL', { message: 'no beginning of a window lies there', found: place });
}
