import { checkRank, type SubBranch, type Tensor } from '../tensor/index.js';
import type { Call, LowRankInput, MethodChoice, Solution, Statistics, Warning } from './method.js';
import { Pair, type PairDtype, roundPair, storePair, withoutPair } from './pair.js';
import { disposeOnFailure, energy, levelsOf, type Metric, residual, valuesOf } from './passes.js';
import { optionsOf } from './recipe.js';
import { findMethod, lowRanks } from './registry.js';
import { inspectHessian } from './solvers/hessian.js';

/** What a low-rank method made of one matrix. */
export interface SubBranchReport {
  rank: number;
  dtype: PairDtype;
  /** `relativeError` of the solver's result without a pair. */
  errorWithout: number;
  /** Rounds or steps that were taken. */
  steps: number;
  /** The one that the result is of, counted from 1, a start from 0: the last where it equals `steps`. */
  best: number;
}

export interface WithSubBranch {
  solution: Solution;
  subBranch: SubBranch;
  relativeError: number;
  lowRank: SubBranchReport;
}

/** The parts of `LowRankInput` that do not depend on the method. */
export type Beside = Omit<LowRankInput<unknown>, 'options' | 'hessian'> & {
  statistics: Statistics;
  /** What errors are measured with, w itself in it, and the share of that in `plain`'s error. */
  metric: Metric;
  energy: number;
  relativeError: number;
};

/** How a recipe's pairs are stored; null where it has none. */
export function pairOf({ lowRank }: { lowRank: MethodChoice | null }): { rank: number; dtype: PairDtype } | null {
  return lowRank && findMethod(lowRanks, lowRank.method, 'recipe.lowRank').stored(optionsOf(lowRank));
}

/**
 * Chooses a pair and the codes beside it, and keeps the solver's own result with a pair of zeros, on record, where that has
 * the smaller error. The solution may be `plain` itself.
 *
 * @throws `LUTRA_E_SHAPE` where the matrix is too small for the rank, and what the method throws
 */
export async function addSubBranch(choice: MethodChoice, beside: Beside, call: Call): Promise<WithSubBranch> {
  const method = findMethod(lowRanks, choice.method, 'recipe.lowRank');
  const options = optionsOf(choice);
  const { rank, dtype } = method.stored(options);
  const { w, plain, statistics, relativeError: errorWithout } = beside;
  checkRank(rank, w.shape[0] ?? 0, w.shape[1] ?? 0, call.where);
  const inspected = method.needs(options).includes('hessian')
    ? await inspectHessian(statistics, method.name, call)
    : undefined;
  const report = { rank, dtype, errorWithout, steps: 0, best: 0 };
  const without = async (warnings: readonly Warning[]) => ({
    ...(await withZeros({ ...plain, warnings: merged(plain.warnings, warnings) }, w, { rank, dtype }, call)),
    relativeError: errorWithout,
    lowRank: report,
  });
  if (inspected?.silent) return await without(inspected.warnings);

  const fitted = await method.fit({ ...beside, options, hessian: inspected?.hessian }, call);
  using pair = fitted.pair;
  const { solution, steps, best } = fitted;
  const made = solution === plain ? [] : [solution.codes, ...valuesOf(solution.values)];
  return await disposeOnFailure(made, async () => {
    const relativeError = await errorBeside(solution, pair, dtype, beside, call);
    const warnings = merged(solution.warnings, inspected?.warnings ?? []);
    if (relativeError <= errorWithout) {
      const subBranch = await storePair(pair, dtype, call);
      return { solution: { ...solution, warnings }, subBranch, relativeError, lowRank: { ...report, steps, best } };
    }
    const kept = await without([...warnings, dropped(errorWithout, relativeError)]);
    for (const tensor of made) tensor.dispose();
    return kept;
  });
}

/** `relativeError` of a solution with the pair that will be stored. */
async function errorBeside(
  { codes, values }: Solution,
  pair: Pair,
  dtype: PairDtype,
  { w, grid, metric, energy: whole }: Beside,
  call: Call,
): Promise<number> {
  using stored = await roundPair(pair, dtype, call);
  using rest = await withoutPair(w, stored, call);
  using levels = await levelsOf(values, grid, call);
  using difference = await residual(rest, codes, levels, grid, call);
  const error = await energy(difference, metric, call);
  return error === 0 ? 0 : error / whole;
}

async function withZeros(
  solution: Solution,
  w: Tensor,
  { rank, dtype }: { rank: number; dtype: PairDtype },
  call: Call,
): Promise<{ solution: Solution; subBranch: SubBranch }> {
  using zeros = Pair.zeros(w.shape, rank);
  return { solution, subBranch: await storePair(zeros, dtype, call) };
}

/** Warnings of the solver and of the pair's method: both may have looked at the same Hessian. */
const merged = (first: readonly Warning[], second: readonly Warning[]): Warning[] => [
  ...first,
  ...second.filter(({ kind, message }) => !first.some((one) => one.kind === kind && one.message === message)),
];

const dropped = (errorWithout: number, error: number): Warning => ({
  kind: 'pairDropped',
  message: `without a pair the error is smaller, ${errorWithout} against ${error}; the pair is of zeros`,
});
