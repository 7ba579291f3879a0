import { Tensor } from '../../tensor/index.js';
import type { Call, Grid, Values } from '../method.js';
import { disposeOnFailure, groupsOf, levelsOf, residualInto } from '../passes.js';
import { compensateRows, copyRows, gatherRows } from '../row-passes.js';
import { columnPass, inverse } from './column-pass.js';
import type { HessianFactor } from './gptq-factor.js';
import type { RowFactors } from './row-factors.js';

type Grids = Values & { storage: 'zeroCode' };

/** A matrix whose rows answer for each other's errors. */
export interface RowProblem {
  /** f32 [heads · d, k] */
  w: Tensor;
  columns: Pick<HessianFactor, 'order'> & { factor: Tensor };
  rows: RowFactors;
  grid: Grid;
  /** Rows of a head that are rounded together, by the column pass alone. */
  rowBlock: number;
  /** Grids of some rows; those of a row do not depend on the others. */
  fitRows(rows: Tensor): Promise<Grids>;
  /** Fits a block's grids to its rows as the errors before them have left them, not to the original ones. */
  adaptive: boolean;
}

/**
 * BoA's pass (arXiv 2406.13474) in blocks of rows (TurboBoA, arXiv 2602.04929): block after block, all heads in step, the
 * rounding errors of a head's rows are made good by the rows that follow, as its row Hessian weighs them; inside a block
 * columns follow columns.
 *
 * @param wanted f32 as w, where given, receives what every code was rounded from.
 */
export async function rowPass(
  problem: RowProblem,
  call: Call,
  wanted?: Tensor,
): Promise<{ codes: Tensor; values: Grids }> {
  const { w, rows, grid, adaptive } = problem;
  const [m, k] = w.shape as [number, number];
  using ordered = await gatherRows(w, rows.rows, call);
  using errors = Tensor.zeros('f32', [m, k]);
  using codes = Tensor.zeros('u8', [m, k]);
  using orderedWanted = wanted && Tensor.zeros('f32', [m, k]);
  const values = adaptive ? emptyGrids(m, groupsOf(grid, k)) : await problem.fitRows(ordered);
  using scales = values.scales;
  using zeros = values.zeros;
  await sweep(problem, { w: ordered, errors, codes, scales, zeros, wanted: orderedWanted }, call);
  const back = inverse(rows.rows);
  if (wanted && orderedWanted) {
    using sorted = await gatherRows(orderedWanted, back, call);
    await copyRows(wanted, sorted, call);
  }
  const found = [await gatherRows(codes, back, call)];
  return await disposeOnFailure(found, async () => {
    for (const tensor of [scales, zeros]) found.push(await gatherRows(tensor, back, call));
    const [codes, sortedScales, sortedZeros] = found as [Tensor, Tensor, Tensor];
    return { codes, values: { storage: 'zeroCode', scales: sortedScales, zeros: sortedZeros } };
  });
}

/** A matrix and its results, rows in pass order. */
interface Sweep {
  w: Tensor;
  /** f32 as w: w minus what its codes stand for, zero where there are none yet. */
  errors: Tensor;
  codes: Tensor;
  scales: Tensor;
  zeros: Tensor;
  wanted: Tensor | undefined;
}

async function sweep(problem: RowProblem, results: Sweep, call: Call): Promise<void> {
  const { factors } = problem.rows;
  const [heads, d] = factors.shape as [number, number];
  const k = results.w.shape[1] ?? 0;
  using w = results.w.reshape([d, heads, k]);
  using errors = results.errors.reshape([d, heads, k]);
  for (let first = 0; first < d; first += problem.rowBlock) {
    const n = Math.min(problem.rowBlock, d - first);
    using block = await compensateRows({ w, errors, factors }, first, n, call);
    using flat = block.reshape([n * heads, k]);
    await roundBlock(problem, results, flat, first * heads, call);
  }
}

/** Rounds compensated rows, which are the rows from `begin` in pass order. */
async function roundBlock(
  { columns, grid, fitRows, adaptive }: RowProblem,
  results: Sweep,
  block: Tensor,
  begin: number,
  call: Call,
): Promise<void> {
  const end = begin + (block.shape[0] ?? 0);
  using scales = results.scales.rows(begin, end);
  using zeros = results.zeros.rows(begin, end);
  if (adaptive) {
    const fitted = await fitRows(block);
    using fittedScales = fitted.scales;
    using fittedZeros = fitted.zeros;
    await copyRows(scales, fittedScales, call);
    await copyRows(zeros, fittedZeros, call);
  }
  const values: Values = { storage: 'zeroCode', scales, zeros };
  using wanted = results.wanted?.rows(begin, end);
  using codes = await columnPass(block, values, columns, grid, call, wanted);
  using kept = results.codes.rows(begin, end);
  await copyRows(kept, codes, call);
  using original = results.w.rows(begin, end);
  using difference = results.errors.rows(begin, end);
  using levels = await levelsOf(values, grid, call);
  await residualInto(difference, { w: original, codes, levels }, grid, call);
}

const emptyGrids = (m: number, groups: number): Grids => ({
  storage: 'zeroCode',
  scales: Tensor.zeros('f32', [m, groups]),
  zeros: Tensor.zeros('f32', [m, groups]),
});
