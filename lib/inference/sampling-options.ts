import { lutraError } from '../errors.js';

/** How the next token is chosen from the logits. */
export interface SamplingOptions {
  /** 0, the default, takes the most likely token; above it, logits are divided by it before the softmax. */
  temperature?: number | undefined;
  /** Keep the k most likely tokens; 0, the default, keeps all. */
  topK?: number | undefined;
  /** Keep the fewest most likely tokens whose probability reaches this (nucleus, arXiv 1904.09751); default 1, all. */
  topP?: number | undefined;
  /** Keep tokens at least this share as likely as the most likely one (arXiv 2407.01082); default 0, all. */
  minP?: number | undefined;
  /** Divides positive and multiplies negative logits of tokens seen before (CTRL, arXiv 1909.05858, §4.1); default 1, none. */
  repetitionPenalty?: number | undefined;
  /** A whole number; the same seed gives the same text on the same machine. A random one by default. */
  seed?: number | undefined;
}

export type Sampling = Required<{ [Key in Exclude<keyof SamplingOptions, 'seed'>]: number }>;

/** Fills in the defaults. @throws `LUTRA_E_OPTION` naming the option that is out of range. */
export function normalizeSampling(options: SamplingOptions): Sampling {
  const { temperature = 0, topK = 0, topP = 1, minP = 0, repetitionPenalty = 1 } = options;
  check('temperature', temperature, temperature >= 0 && temperature <= 1e6, 'a number from 0 to 1e6');
  check('topK', topK, Number.isSafeInteger(topK) && topK >= 0, 'a whole number, 0 for all tokens');
  check('topP', topP, topP > 0 && topP <= 1, 'a number above 0, at most 1');
  check('minP', minP, minP >= 0 && minP <= 1, 'a number from 0 to 1');
  const penalty = repetitionPenalty;
  check('repetitionPenalty', penalty, penalty > 0 && penalty <= 1e6, 'a number above 0, at most 1e6');
  return { temperature, topK, topP, minP, repetitionPenalty };
}

/** @throws `LUTRA_E_OPTION` */
export function checkSeed(seed: number): number {
  check('seed', seed, Number.isSafeInteger(seed) && seed >= 0, 'a whole number from 0 to 2^53 - 1');
  return seed;
}

function check(where: string, found: unknown, fits: boolean, expected: string): void {
  if (typeof found === 'number' && fits) return;
  throw lutraError('LUTRA_E_OPTION', { message: 'unusable option', where, found: String(found), expected });
}
