import { corpusBytes, drawHeldOut, drawWindows, readCorpus, tokenizeCorpus } from '../calibration/index.js';
import { lutraError } from '../errors.js';
import type { LlamaConfig } from '../models/index.js';
import type { Tokenizer } from '../tokenizer/index.js';
import type { CalibrationJob } from './job.js';
import type { Progress } from './progress.js';

/** The literature's number and longest length of windows (GPTQ, arXiv 2210.17323, section 4). */
const defaultSamples = 128;
const longestDefault = 2048;

export interface CalibrationInputs {
  /** Ids, all of one length. */
  windows: Int32Array[];
  /** As long as those, without a token of theirs: no method sees them. */
  heldOut: Int32Array[];
  sequenceLength: number;
  /** Tokens of the whole text. */
  tokens: number;
  /** What the manifest tells of it. */
  record: {
    sha256: string;
    separator: string | null;
    samples: number;
    heldOut: number;
    sequenceLength: number;
    seed: number;
    /** Windows that may be left out. */
    maxBadWindows: number;
    tokens: number;
  };
}

/** How many windows there are going to be, and of how many tokens. */
export interface WindowSizes {
  readonly samples: number;
  readonly heldOut: number;
  readonly sequenceLength: number;
  /** Bytes of the text that they are drawn from. */
  readonly textBytes: number;
}

/** Numbers of windows and of the text's bytes, before it is read. @throws what `windowNumbers` and `corpusBytes` throw */
export async function windowSizes(job: CalibrationJob, config: LlamaConfig): Promise<WindowSizes> {
  const { samples, heldOut, sequenceLength } = windowNumbers(job, config);
  return { samples, heldOut, sequenceLength, textBytes: await corpusBytes(job) };
}

/** @throws `LUTRA_E_OPTION` for numbers that make no sense */
function windowNumbers(
  job: CalibrationJob,
  config: LlamaConfig,
): Omit<WindowSizes, 'textBytes'> & { seed: number; maxBadWindows: number } {
  const samples = wholeNumber(job.samples ?? defaultSamples, 'samples', 1, 2 ** 20);
  const longest = Math.min(longestDefault, config.context);
  const sequenceLength = wholeNumber(job.sequenceLength ?? longest, 'sequenceLength', 1, config.context);
  const seed = wholeNumber(job.seed ?? 0, 'seed', 0, Number.MAX_SAFE_INTEGER);
  const heldOut = wholeNumber(job.heldOut ?? 0, 'heldOut', 0, 2 ** 20);
  const maxBadWindows = wholeNumber(job.maxBadWindows ?? 0, 'maxBadWindows', 0, samples - 1);
  return { samples, heldOut, sequenceLength, seed, maxBadWindows };
}

/**
 * Reads the calibration text and draws its windows.
 *
 * @throws `LUTRA_E_CALIBRATION_TOO_SHORT`, and what `windowNumbers` and the corpus throw.
 */
export async function readCalibration(
  job: CalibrationJob,
  tokenizer: Tokenizer,
  config: LlamaConfig,
  signal: AbortSignal | undefined,
  report: (event: Progress) => void,
): Promise<CalibrationInputs> {
  const { samples, heldOut, sequenceLength, seed, maxBadWindows } = windowNumbers(job, config);
  const corpus = await readCorpus(job, signal);
  const tokens = await tokenizeCorpus(corpus, tokenizer, signal, (characters, totalCharacters) =>
    report({ phase: 'encode', characters, totalCharacters }),
  );
  const options = { samples, sequenceLength, seed };
  const windows = drawWindows(tokens, options, corpus.where);
  const { sha256 } = corpus;
  const separator = job.separator ?? null;
  const record = { sha256, separator, samples, heldOut, sequenceLength, seed, maxBadWindows, tokens: tokens.length };
  const others = drawHeldOut(tokens, options, heldOut, corpus.where);
  return { windows, heldOut: others, sequenceLength, tokens: tokens.length, record };
}

/** A token in as many windows on average, or more, has been seen before. */
const many = 8;

/** Sentences on windows that are many more than the text has to offer. */
export function windowNotes({ windows, heldOut, sequenceLength, tokens }: CalibrationInputs): string[] {
  const note = (count: number, what: string) => {
    const times = Math.round((count * sequenceLength) / tokens);
    if (times < many) return [];
    return [
      `${count} ${what} of ${sequenceLength} tokens each, from a text of ${tokens}: a token is in about ${times} of them; ` +
        'so many tell little new, a longer text does',
    ];
  };
  return [...note(windows.length, 'calibration windows'), ...note(heldOut.length, 'held-out windows')];
}

function wholeNumber(value: unknown, option: string, least: number, most: number): number {
  if (typeof value === 'number' && Number.isSafeInteger(value) && value >= least && value <= most) return value;
  throw lutraError('LUTRA_E_OPTION', {
    message: 'not a usable number',
    where: `calibration.${option}`,
    found: String(value),
    expected: `a whole number from ${least} to ${most}`,
  });
}
