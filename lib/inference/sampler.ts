import { randomInt } from 'node:crypto';
import { Random } from '../calibration/index.js';
import { lutraError } from '../errors.js';
import { checkSeed, normalizeSampling, type Sampling, type SamplingOptions } from './sampling-options.js';

/** Tokens that may come next: where top-k or top-p rank them the most likely first, lower ids first among equals; else by id. */
export interface Candidates {
  readonly ids: readonly number[];
  /** Sum to 1. */
  readonly probabilities: readonly number[];
}

/**
 * Chooses tokens: repetition penalty, temperature, top-k, top-p, min-p, in this order, each on what the one before it
 * left, then one draw. Arithmetic is fp64, so that a seed decides alone.
 */
export class Sampler {
  readonly #sampling: Sampling;
  readonly #random: Random;

  /** @throws `LUTRA_E_OPTION` */
  constructor(options: SamplingOptions = {}) {
    this.#sampling = normalizeSampling(options);
    this.#random = new Random(checkSeed(options.seed ?? randomInt(2 ** 32)));
  }

  /** Whether `next` takes the largest logit, whatever was seen. */
  get greedy(): boolean {
    return this.#sampling.temperature === 0 && this.#sampling.repetitionPenalty === 1;
  }

  /**
   * The next token.
   *
   * @param logits f32 [vocabulary].
   * @param seen ids of the prompt and of what was generated, for the repetition penalty.
   * @throws `LUTRA_E_NON_FINITE` where the logits hold a NaN or are all infinite.
   */
  next(logits: Float32Array, seen: Iterable<number> = []): number {
    const penalized = penalize(logits, seen, this.#sampling.repetitionPenalty);
    if (this.#sampling.temperature === 0) return mostLikely(penalized);
    const { ids, probabilities } = distribution(penalized, this.#sampling);
    let rest = this.#random.next();
    for (let i = 0; i < ids.length; i++) {
      rest -= probabilities[i]!;
      if (rest < 0) return ids[i]!;
    }
    return ids.at(-1)!;
  }

  /** What `next` would draw from; one token of probability 1 at temperature 0. */
  candidates(logits: Float32Array, seen: Iterable<number> = []): Candidates {
    const penalized = penalize(logits, seen, this.#sampling.repetitionPenalty);
    if (this.#sampling.temperature === 0) return { ids: [mostLikely(penalized)], probabilities: [1] };
    return distribution(penalized, this.#sampling);
  }
}

function penalize(logits: Float32Array, seen: Iterable<number>, penalty: number): Float32Array {
  if (penalty === 1) return logits;
  const result = logits.slice();
  for (const id of new Set(seen)) {
    const logit = logits[id];
    if (logit !== undefined) result[id] = logit > 0 ? logit / penalty : logit * penalty;
  }
  return result;
}

/** Index of the largest logit, the lowest on ties. */
function mostLikely(logits: Float32Array): number {
  let best = 0;
  for (let id = 0; id < logits.length; id++) {
    const logit = logits[id]!;
    if (Number.isNaN(logit)) throw nonFinite(id);
    if (logit > logits[best]!) best = id;
  }
  if (!Number.isFinite(logits[best])) throw nonFinite(best);
  return best;
}

function distribution(logits: Float32Array, sampling: Sampling): Candidates {
  const { temperature, topK, topP, minP } = sampling;
  const largest = logits[mostLikely(logits)]!;
  const weights = new Float64Array(logits.length);
  for (let id = 0; id < logits.length; id++) weights[id] = Math.exp((logits[id]! - largest) / temperature);
  const least = Math.max(minP, Number.MIN_VALUE);
  const ids =
    topK === 0 && topP === 1
      ? atLeast(weights, least)
      : nucleus(logits, weights, topK, topP).filter((id) => weights[id]! >= least);
  const probabilities = ids.map((id) => weights[id]!);
  const total = sum(probabilities);
  return { ids, probabilities: probabilities.map((weight) => weight / total) };
}

function atLeast(weights: Float64Array, least: number): number[] {
  const ids: number[] = [];
  for (let id = 0; id < weights.length; id++) if (weights[id]! >= least) ids.push(id);
  return ids;
}

/** What top-k and then top-p keep, ranked. */
function nucleus(logits: Float32Array, weights: Float64Array, topK: number, topP: number): number[] {
  // Tokens below the cut cannot be in the nucleus: all of them together weigh less than what it leaves out. That spares
  // sorting a large vocabulary.
  const cut = topK === 0 ? ((1 - topP) * sum(weights)) / weights.length : 0;
  const ranking = ranked(logits, weights, cut, topK === 0 ? weights.length : topK);
  if (topP === 1) return ranking;
  const total = topK === 0 ? sum(weights) : sum(ranking.map((id) => weights[id]!));
  return ranking.slice(0, nucleusSize(ranking, weights, topP * total));
}

/** The `limit` likeliest ids whose weight is above 0 and at least `cut`, lower ids first among equals. */
function ranked(logits: Float32Array, weights: Float64Array, cut: number, limit: number): number[] {
  const order = (a: number, b: number) => logits[b]! - logits[a]! || a - b;
  const kept: number[] = [];
  let beaten = Number.NEGATIVE_INFINITY;
  for (let id = 0; id < weights.length; id++) {
    if (weights[id] === 0 || weights[id]! < cut || logits[id]! <= beaten) continue;
    kept.push(id);
    if (kept.length < 2 * limit + 64) continue;
    kept.sort(order).length = limit;
    beaten = logits[kept.at(-1)!]!;
  }
  return kept.sort(order).slice(0, limit);
}

/** How many of the ranking, at least one, it takes to reach the mass. */
function nucleusSize(ranking: readonly number[], weights: Float64Array, mass: number): number {
  let reached = 0;
  for (let i = 0; i < ranking.length; i++) {
    reached += weights[ranking[i]!]!;
    if (reached >= mass) return i + 1;
  }
  return ranking.length;
}

function sum(values: ArrayLike<number>): number {
  let total = 0;
  for (let i = 0; i < values.length; i++) total += values[i]!;
  return total;
}

/** What a model is refused with whose logits are not numbers. */
export function nonFinite(id: number): Error {
  return lutraError('LUTRA_E_NON_FINITE', {
    message: 'the model answers with logits that are not numbers',
    where: 'sampler',
    found: `id ${id}`,
  });
}
