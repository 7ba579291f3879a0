import type { BurstLength } from './burst.js';

/** Something that can be timed beside others. */
export interface Contestant {
  /** Work of one call, in a unit that contestants to be compared share: bytes read, operations done. */
  work: number;
  /** Milliseconds of every measured call. */
  burst(length: BurstLength): number[] | Promise<number[]>;
}

/** How long contestants are measured together. */
export interface Effort {
  /** Bursts of every contestant at least. */
  rounds: number;
  /** Rounds go on until so much time has passed, for all contestants together. */
  milliseconds: number;
  burst: BurstLength;
}

export const defaultEffort: Effort = { rounds: 5, milliseconds: 1000, burst: { calls: 20, milliseconds: 10 } };

/** Bursts of all contestants in turn, again and again. @returns milliseconds by contestant, round and call */
export async function interleave(
  contestants: readonly Contestant[],
  effort: Effort,
  signal?: AbortSignal,
): Promise<number[][][]> {
  const rounds: number[][][] = contestants.map(() => []);
  const begin = performance.now();
  for (let round = 0; round < effort.rounds || performance.now() - begin < effort.milliseconds; round++)
    for (const [i, contestant] of contestants.entries()) {
      signal?.throwIfAborted();
      rounds[i]?.push(await contestant.burst(effort.burst));
    }
  return rounds;
}
