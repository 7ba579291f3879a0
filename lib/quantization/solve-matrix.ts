import type { SubBranch, Tensor } from '../tensor/index.js';
import { atLeastRounded } from './at-least-rounded.js';
import { refuseNonFinite, refuseNonFiniteValues } from './finite.js';
import { type HeadStatistics, JoinedRows } from './joined-rows.js';
import type { Call, Grid, Need, ScaleDtype, Solution, Solver, Statistics, Warning } from './method.js';
import { gridOf } from './overrides.js';
import { disposePair } from './pair.js';
import { asFloat32, disposeOnFailure, type Metric, valuesOf } from './passes.js';
import { optionsOf, type Recipe, storageOf } from './recipe.js';
import { findMethod, findSolver, lowRanks } from './registry.js';
import { chooseScaleDtype } from './scale-dtype.js';
import { addSubBranch, type Beside, type SubBranchReport } from './sub-branch.js';

/** What became of one matrix. */
export interface LayerReport {
  /**
   * tr(ΔW H ΔWᵀ) / tr(W H Wᵀ) where the method was given a Hessian H, else ‖ΔW‖² / ‖W‖²; ΔW is what quantization
   * changed. With row Hessians G both are sums over heads of tr(G ΔW H ΔWᵀ), and with a Hessian a head of each head's own.
   * Zero for a matrix of zeros.
   */
  relativeError: number;
  /** The same for round to nearest with the same scales and offsets. `relativeError` is never above it where there is a Hessian. */
  rtnError: number;
  damping: number | null;
  deadColumns: number;
  scaleDtype: ScaleDtype;
  /** What the recipe's low-rank method did; null where it has none. */
  lowRank: SubBranchReport | null;
  warnings: Warning[];
}

/** What follows from the statistics of one input, for every matrix that reads it. */
export interface PreparedInputs {
  solver: Solver;
  prepared: unknown;
  release(): void;
}

export async function prepareInputs(recipe: Recipe, statistics: Statistics, call: Call): Promise<PreparedInputs> {
  const solver = findSolver(recipe.solver.method);
  const prepared = await solver.prepare(statistics, optionsOf(recipe.solver), call);
  return { solver, prepared, release: () => solver.release(prepared) };
}

/** What the recipe's methods must be handed besides the weights of a matrix, with the options that they have there. */
export function needsOf({ solver, lowRank }: Recipe): readonly Need[] {
  const needs = new Set(findSolver(solver.method).needs(optionsOf(solver)));
  if (lowRank)
    for (const need of findMethod(lowRanks, lowRank.method, 'recipe.lowRank').needs(optionsOf(lowRank)))
      needs.add(need);
  return [...needs];
}

/** Whether a block's Hessians are to be collected input by input, with the layers before already quantized. */
export function isSequential({ solver }: Recipe): boolean {
  return findSolver(solver.method).sequential?.(optionsOf(solver)) ?? false;
}

/** A matrix as its solver left it: `pack` makes weights of it. The caller's to dispose. */
export interface SolvedMatrix {
  grid: Grid;
  scaleDtype: ScaleDtype;
  solution: Solution;
  subBranch: SubBranch | null;
  report: LayerReport;
  /** What the report's errors are relative to: the matrix in the method's metric. */
  energy: number;
}

/** Quantizes and measures one matrix with statistics of its own. @param dtype as `solveMatrix` has it */
export async function solveWith(
  w: Tensor,
  recipe: Recipe,
  statistics: Statistics,
  call: Call,
  dtype?: ScaleDtype,
): Promise<SolvedMatrix> {
  const prepared = await prepareInputs(recipe, statistics, call);
  try {
    return await solveMatrix(w, recipe, { ...prepared, statistics }, call, dtype);
  } finally {
    prepared.release();
  }
}

/**
 * Quantizes and measures one matrix. `recipe` is normalised, `call.where` the layer's name.
 *
 * @param dtype of the scales, where the matrix is part of another; else its own weights choose.
 */
export async function solveMatrix(
  w: Tensor,
  recipe: Recipe,
  inputs: PreparedInputs & { statistics: Statistics },
  call: Call,
  dtype?: ScaleDtype,
): Promise<SolvedMatrix> {
  const grid = gridOf(recipe, call.where);
  const weights = await asFloat32(w, call);
  try {
    await refuseNonFinite(weights, call);
    const { solver, prepared } = inputs;
    const { scaleDtype, warnings } = dtype
      ? { scaleDtype: dtype, warnings: [] }
      : await chooseScaleDtype(weights, grid, storageOf(recipe), call);
    const options = optionsOf(recipe.solver);
    const metric = metricOf(recipe, inputs.statistics);
    const solve = (matrix: Tensor) =>
      solver.solve({ w: matrix, grid, scaleDtype, options, prepared, rowHessian: metric.rowHessian }, call);
    const solved = await solve(weights);
    await disposeOnFailure(tensorsOf(solved), () => refuseNonFiniteValues(solved.values, call));
    const learns = solver.needs(options).includes('hessian');
    const measured = await atLeastRounded(weights, solved, { grid, scaleDtype, learns }, metric, call);
    const { solution: plain, energy, rtnError } = measured;
    const beside = { w: weights, grid, scaleDtype, statistics: inputs.statistics, metric, plain, solve, ...measured };
    const added = await disposeOnFailure(tensorsOf(plain), () => besideOf(recipe, beside, call));
    const { solution, subBranch, ...errors } = added;
    if (solution.codes !== plain.codes) {
      for (const tensor of tensorsOf(plain)) tensor.dispose();
      const made = { dispose: () => disposeSolved({ solution, subBranch }) };
      await disposeOnFailure([made], () => refuseNonFiniteValues(solution.values, call));
    }
    const { damping, deadColumns } = solution;
    const all = [...warnings, ...solution.warnings];
    const report = { rtnError, ...errors, damping, deadColumns, scaleDtype, warnings: all };
    return { grid, scaleDtype, solution, subBranch, report, energy };
  } finally {
    if (weights !== w) weights.dispose();
  }
}

/**
 * Quantizes a matrix whose heads have inputs of their own, each head's rows as a matrix by itself: BoA's value projection
 * (arXiv 2406.13474). The statistics of one head are asked for when those before it are done with.
 *
 * @param parts one for every head, in order.
 */
export async function solveHeads(
  w: Tensor,
  recipe: Recipe,
  parts: AsyncIterable<HeadStatistics>,
  call: Call,
): Promise<SolvedMatrix> {
  const grid = gridOf(recipe, call.where);
  const weights = await asFloat32(w, call);
  try {
    const { scaleDtype, warnings } = await chooseScaleDtype(weights, grid, storageOf(recipe), call);
    const joined = new JoinedRows(w.shape);
    await disposeOnFailure([joined], async () => {
      let head = 0;
      for await (const part of parts) {
        using rows = weights.rows(joined.rows, joined.rows + (w.shape[0] ?? 0) / part.heads);
        const solved = await solveWith(rows, recipe, part, { ...call, head: head++ }, scaleDtype);
        try {
          await joined.append(solved, call);
        } finally {
          disposeSolved(solved);
        }
      }
    });
    return { grid, scaleDtype, ...joined.result(scaleDtype, warnings) };
  } finally {
    if (weights !== w) weights.dispose();
  }
}

/** What of the statistics the recipe's methods ask for. */
function metricOf(recipe: Recipe, { hessian, rowHessian }: Statistics): Metric {
  const needs = needsOf(recipe);
  if (!needs.includes('hessian')) return {};
  return needs.includes('attention') ? { hessian, rowHessian } : { hessian };
}

export function disposeSolved({ solution, subBranch }: Pick<SolvedMatrix, 'solution' | 'subBranch'>): void {
  for (const tensor of tensorsOf(solution)) tensor.dispose();
  if (subBranch) disposePair(subBranch);
}

/** The solver's result, or what the recipe's low-rank method makes of it. */
async function besideOf(
  { lowRank }: Recipe,
  beside: Beside,
  call: Call,
): Promise<Pick<SolvedMatrix, 'solution' | 'subBranch'> & Pick<LayerReport, 'relativeError' | 'lowRank'>> {
  if (lowRank) return await addSubBranch(lowRank, beside, call);
  const { plain, relativeError } = beside;
  return { solution: plain, subBranch: null, relativeError, lowRank: null };
}

const tensorsOf = ({ codes, values }: Solution): Tensor[] => [codes, ...valuesOf(values)];
