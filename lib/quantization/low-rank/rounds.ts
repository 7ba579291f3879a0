import type { Tensor } from '../../tensor/index.js';
import type { Call, Grid, LowRankInput, LowRankResult, Solution } from '../method.js';
import { fitPair, Pair, type PairDtype, roundPair, withoutPair } from '../pair.js';
import { energy, levelsOf, residual, valuesOf } from '../passes.js';

/** What rounds of fitting a pair and solving anew are made of. */
export interface Rounds {
  rank: number;
  storage: PairDtype;
  /** At most so many. */
  rounds: number;
  /** A Hessian, the metric of the fits; the plain one where there is none. */
  metric: Tensor | undefined;
}

type Matrix = Pick<LowRankInput<unknown>, 'w' | 'grid' | 'plain' | 'solve'>;

/** w minus what a solution's codes stand for. */
async function leftBy({ codes, values }: Solution, w: Tensor, grid: Grid, call: Call): Promise<Tensor> {
  using levels = await levelsOf(values, grid, call);
  return await residual(w, codes, levels, grid, call);
}

/** The solver's answer to w without the pair, and the error that is left with it. */
async function solveBeside(
  pair: Pair,
  { w, grid, solve }: Matrix,
  { storage, metric }: Rounds,
  call: Call,
): Promise<{ solution: Solution; error: number }> {
  using stored = await roundPair(pair, storage, call);
  using rest = await withoutPair(w, stored, call);
  const solution = await solve(rest);
  try {
    using left = await leftBy(solution, rest, grid, call);
    return { solution, error: await energy(left, { hessian: metric }, call) };
  } catch (error) {
    dispose(solution);
    throw error;
  }
}

/**
 * Rounds of two steps: the pair that fits best what the codes leave of w, then new codes for what the pair leaves. The round
 * of least error is the result: it ends with its codes, so the solver answers for every single weight's error. A few rounds
 * without a better one are the last.
 */
export async function alternate(matrix: Matrix, rounds: Rounds, call: Call): Promise<LowRankResult> {
  const { w, grid, plain } = matrix;
  const pairs = [Pair.zeros(w.shape, rounds.rank), Pair.zeros(w.shape, rounds.rank)] as [Pair, Pair];
  let current = plain;
  let best: { solution: Solution; error: number; round: number } | undefined;
  const isKept = (solution: Solution) => solution === plain || solution === best?.solution;
  try {
    let steps = 0;
    while (steps < rounds.rounds && steps - (best?.round ?? 0) < patience) {
      steps += 1;
      const [kept, trial] = pairs;
      if (best?.round === steps - 1) trial.b.write(kept.b.read());
      using left = await leftBy(current, w, grid, call);
      await fitPair(left, rounds.metric, trial, call);
      const { solution, error } = await solveBeside(trial, matrix, rounds, call);
      if (!isKept(current)) dispose(current);
      current = solution;
      if (best && error >= best.error) continue;
      if (best) dispose(best.solution);
      best = { solution, error, round: steps };
      pairs.reverse();
    }
    if (!isKept(current)) dispose(current);
    const [pair, spare] = pairs;
    spare.dispose();
    return { solution: best?.solution ?? plain, pair, steps, best: best?.round ?? 0 };
  } catch (error) {
    for (const solution of [current, best?.solution]) if (solution && solution !== plain) dispose(solution);
    for (const pair of pairs) pair.dispose();
    throw error;
  }
}

const patience = 4;

/** The same rounds, ended on a fit: codes for what the pair before leaves, and the pair that fits best what they leave. */
export async function alternateToFit(matrix: Matrix, rounds: Rounds, call: Call): Promise<LowRankResult> {
  const { w, grid, plain } = matrix;
  const pair = Pair.zeros(w.shape, rounds.rank);
  let current = plain;
  try {
    for (let round = 1; round <= rounds.rounds; round++) {
      if (round > 1) {
        const { solution } = await solveBeside(pair, matrix, rounds, call);
        if (current !== plain) dispose(current);
        current = solution;
      }
      using left = await leftBy(current, w, grid, call);
      await fitPair(left, rounds.metric, pair, call);
    }
    return { solution: current, pair, steps: rounds.rounds, best: rounds.rounds };
  } catch (error) {
    if (current !== plain) dispose(current);
    pair.dispose();
    throw error;
  }
}

function dispose({ codes, values }: Solution): void {
  for (const tensor of [codes, ...valuesOf(values)]) tensor.dispose();
}
