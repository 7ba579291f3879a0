import { dtypeIds } from '../native/index.js';
import { Tensor } from '../tensor/index.js';
import type { Call, Grid, ScaleDtype, Values } from './method.js';
import { disposeOnFailure, groupColumns, task } from './passes.js';

/**
 * Passes over the rows of heads, typed. A matrix of `heads` heads of d rows each has m = heads · d rows; row Hessians are
 * f64 [heads, d, d], and [m, 1, 1] of ones where rows have nothing to do with each other.
 */

/** y[i] = x[index[i]], row by row, into `y`; both f32 or both u8. */
export async function gatherRowsInto(y: Tensor, x: Tensor, index: Int32Array, call: Call): Promise<void> {
  using rows = Tensor.copyOf(index);
  await task('gatherRows', [x, rows, y], [], call);
}

/** The rows of x that the index names. */
export async function gatherRows(x: Tensor, index: Int32Array, call: Call): Promise<Tensor> {
  const [, ...rest] = x.shape;
  const gathered = Tensor.zeros(x.dtype, [index.length, ...rest]);
  await disposeOnFailure([gathered], () => gatherRowsInto(gathered, x, index, call));
  return gathered;
}

/** Copies all of x over `target`, of the same shape. */
export async function copyRows(target: Tensor, x: Tensor, call: Call): Promise<void> {
  await gatherRowsInto(
    target,
    x,
    Int32Array.from({ length: x.shape[0] ?? 0 }, (_, row) => row),
    call,
  );
}

/**
 * Rows [first, first + n) of all heads with what the errors of the rows before them ask for: f32 [n, heads, k].
 *
 * @param w and `errors` f32 [d, heads, k], row p of every head before row p + 1; `factors` f64 [heads, d, d].
 */
export async function compensateRows(
  { w, errors, factors }: { w: Tensor; errors: Tensor; factors: Tensor },
  first: number,
  n: number,
  call: Call,
): Promise<Tensor> {
  const [, heads = 0, k = 0] = w.shape;
  const block = Tensor.zeros('f32', [n, heads, k]);
  await disposeOnFailure([block], () => task('compensateRows', [w, errors, factors, block], [first], call));
  return block;
}

/** What both passes below make smaller: the two-sided error of codes against w. */
export interface TwoSided {
  w: Tensor;
  /** u8 [m, k] */
  codes: Tensor;
  values: Values & { storage: 'zeroCode' };
  hessian: Tensor;
  /** Rows are independent where there is none. */
  rowHessian: Tensor | undefined;
}

/** Fits the scales again, in place, to codes that stay. */
export async function refineScales(problem: TwoSided, grid: Grid, dtype: ScaleDtype, call: Call): Promise<void> {
  const { w, codes, values, hessian } = problem;
  const numbers = [groupColumns(grid, w.shape[1] ?? 0), dtypeIds[dtype]];
  await withRowHessian(problem, (rows) =>
    task('refineScales', [w, codes, hessian, rows, values.scales, values.zeros], numbers, call),
  );
}

export interface LearnedRounding {
  iterations: number;
  learningRate: number;
  regularization: number;
  warmUp: number;
  /** The regulariser's power falls linearly from the first to the second. */
  beta: readonly [number, number];
}

/** Learns, in place, which neighbour of `base` f32 [m, k] every code is. */
export async function learnRounding(
  problem: TwoSided,
  base: Tensor,
  grid: Grid,
  options: LearnedRounding,
  call: Call,
): Promise<void> {
  const { w, codes, values, hessian } = problem;
  const { iterations, learningRate, regularization, warmUp, beta } = options;
  const numbers = [grid.bits, groupColumns(grid, w.shape[1] ?? 0), iterations];
  numbers.push(learningRate, regularization, warmUp, ...beta);
  await withRowHessian(problem, (rows) =>
    task('learnRounding', [w, base, values.scales, values.zeros, hessian, rows, codes], numbers, call),
  );
}

async function withRowHessian({ w, rowHessian }: TwoSided, work: (rows: Tensor) => Promise<unknown>): Promise<void> {
  if (rowHessian) {
    await work(rowHessian);
    return;
  }
  const rows = w.shape[0] ?? 0;
  using ones = Tensor.copyOf(new Float64Array(rows).fill(1), [rows, 1, 1]);
  await work(ones);
}
