import { dtypeIds } from '../native/index.js';
import { Tensor } from '../tensor/index.js';
import type { Call, Grid, ScaleDtype, Values } from './method.js';
import { disposeOnFailure, groupColumns, groupsOf, levelsOf, residual, task } from './passes.js';

/** A Hessian and what damping adds to its diagonal, f64 [k]. */
export interface DampedHessian {
  hessian: Tensor;
  diagonal: Tensor;
}

/** A matrix in the making, with the objective of each row, (ŵ - w) H (ŵ - w)ᵀ in the damped Hessian. */
export interface CodedRows {
  /** u8 [m, k] */
  codes: Tensor;
  /** f32 [m, groups] */
  scales: Tensor;
  /** f32 [m, groups]: real offsets, or, with a symmetric grid, the zero's code in every place. */
  offsets: Tensor;
  /** f64 [m] */
  errors: Tensor;
}

export const valuesOfRows = ({ scales, offsets }: Pick<CodedRows, 'scales' | 'offsets'>, grid: Grid): Values =>
  grid.symmetric ? { storage: 'zeroCode', scales, zeros: offsets } : { storage: 'realOffset', scales, offsets };

/** The objective of every row, f64 [m]; products in fp32. */
export async function rowErrors(
  w: Tensor,
  codes: Tensor,
  values: Values,
  { hessian, diagonal }: DampedHessian,
  grid: Grid,
  call: Call,
): Promise<Tensor> {
  using levels = await levelsOf(values, grid, call);
  using difference = await residual(w, codes, levels, grid, call);
  const errors = Tensor.zeros('f64', [w.shape[0] ?? 0]);
  await disposeOnFailure([errors], () => task('dampedFormRows', [hessian, diagonal, difference, errors], [], call));
  return errors;
}

/** Real offsets of a grid with zero codes, rounded to `dtype`. */
export async function offsetsOfGrid(scales: Tensor, zeros: Tensor, dtype: ScaleDtype, call: Call): Promise<Tensor> {
  const offsets = Tensor.zeros('f32', scales.shape);
  await disposeOnFailure([offsets], () => task('offsetsOfGrid', [scales, zeros, offsets], [dtypeIds[dtype]], call));
  return offsets;
}

/** W times the damped Hessian, f64 [m, k]. */
export async function pull(w: Tensor, { hessian, diagonal }: DampedHessian, call: Call): Promise<Tensor> {
  const pulled = Tensor.zeros('f64', w.shape);
  await disposeOnFailure([pulled], () => task('decoupleqPull', [hessian, diagonal, w, pulled], [], call));
  return pulled;
}

const numbersOf = (grid: Grid, k: number, dtype: ScaleDtype): number[] => [
  grid.bits,
  groupColumns(grid, k),
  Number(grid.symmetric),
  dtypeIds[dtype],
];

/** All scales and offsets of every row by least squares, codes given, rounded to `dtype`; in place, where that is better. */
export async function fitToCodes(
  { w, pulled, grid, dtype }: { w: Tensor; pulled: Tensor; grid: Grid; dtype: ScaleDtype },
  { hessian, diagonal }: DampedHessian,
  { codes, scales, offsets, errors }: CodedRows,
  call: Call,
): Promise<void> {
  const operands = [hessian, diagonal, w, pulled, codes, scales, offsets, errors];
  await task('decoupleqFit', operands, numbersOf(grid, w.shape[1] ?? 0, dtype), call);
}

/** Scales and offsets of the range whose nearest codes have each row's least objective, one factor a row. */
export async function searchRange(
  w: Tensor,
  { hessian, diagonal }: DampedHessian,
  grid: Grid,
  dtype: ScaleDtype,
  call: Call,
): Promise<Pick<CodedRows, 'scales' | 'offsets'>> {
  const [m, k] = w.shape as [number, number];
  const scales = Tensor.zeros('f32', [m, groupsOf(grid, k)]);
  const offsets = Tensor.zeros('f32', [m, groupsOf(grid, k)]);
  if (grid.symmetric) offsets.fill(2 ** (grid.bits - 1));
  const operands = [hessian, diagonal, w, scales, offsets];
  await disposeOnFailure([scales, offsets], () => task('decoupleqSearch', operands, numbersOf(grid, k, dtype), call));
  return { scales, offsets };
}

export interface Descent {
  /** Of Adam before the first column is rounded, and after every one that is. */
  steps: number;
  innerSteps: number;
  /** In steps of the grid. */
  rate: number;
}

/** Codes u8 [m, k] by projected gradient descent, numbers given. */
export async function descend(
  w: Tensor,
  { scales, offsets }: Pick<CodedRows, 'scales' | 'offsets'>,
  { hessian, diagonal }: DampedHessian,
  { grid, dtype, steps, innerSteps, rate }: Descent & { grid: Grid; dtype: ScaleDtype },
  call: Call,
): Promise<Tensor> {
  const codes = Tensor.zeros('u8', w.shape);
  const operands = [hessian, diagonal, w, scales, offsets, codes];
  const numbers = [...numbersOf(grid, w.shape[1] ?? 0, dtype), steps, innerSteps, rate];
  await disposeOnFailure([codes], () => task('decoupleqDescend', operands, numbers, call));
  return codes;
}

/** Rows of `candidate` with smaller errors replace those of `best`; answers how many did. */
export async function takeBetterRows(best: CodedRows, candidate: CodedRows, call: Call): Promise<number> {
  const [taken = 0] = await task('takeBetterRows', [best, candidate].flatMap(tensorsOfRows), [], call);
  return taken;
}

export const tensorsOfRows = ({ codes, scales, offsets, errors }: CodedRows): Tensor[] => [
  codes,
  scales,
  offsets,
  errors,
];
