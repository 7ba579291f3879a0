import { addon, cancellable, dtypeIds, taskIds } from '../native/index.js';
import { Program } from '../ops/index.js';
import { Tensor } from '../tensor/index.js';
import type { Call, Grid, ScaleDtype } from './method.js';

/**
 * The native passes of native/quantize, typed. All of them run off the JavaScript thread and end within one parallel
 * region when `call.signal` is raised. m is outFeatures, k inFeatures, groups the number of groups in a row.
 */
async function task(id: keyof typeof taskIds, tensors: Tensor[], numbers: number[], call: Call): Promise<number[]> {
  const operands = tensors.map((tensor) => tensor.native);
  const { signal, threads = 0, where } = call;
  return await cancellable(signal, (cancel) => addon().task(taskIds[id], operands, numbers, threads, cancel), where);
}

/** Runs what fills or uses new tensors; where that fails, nobody else will give them back. */
export async function disposeOnFailure<T>(made: readonly Tensor[], work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    for (const tensor of made) tensor.dispose();
    throw error;
  }
}

/** Columns of one group of a row of k columns. */
export const groupColumns = (grid: Grid, k: number): number => (grid.groupSize === -1 ? k : grid.groupSize);
export const groupsOf = (grid: Grid, k: number): number => Math.ceil(k / groupColumns(grid, k));

export interface GridValues {
  /** f32 [m, groups]. */
  scales: Tensor;
  /** f32 [m, groups], whole codes. */
  zeros: Tensor;
}

/** Scales and zeros of every group of w, rounded to `dtype`; with `search`, clipped where the 2.4-norm gains by it. */
export async function fitGrid(
  w: Tensor,
  grid: Grid,
  dtype: ScaleDtype,
  search: boolean,
  call: Call,
): Promise<GridValues> {
  const [m, k] = w.shape as [number, number];
  const scales = Tensor.zeros('f32', [m, groupsOf(grid, k)]);
  const zeros = Tensor.zeros('f32', [m, groupsOf(grid, k)]);
  const numbers = [grid.bits, groupColumns(grid, k), Number(grid.symmetric), Number(search), dtypeIds[dtype]];
  await disposeOnFailure([scales, zeros], () => task('fitGrid', [w, scales, zeros], numbers, call));
  return { scales, zeros };
}

/** u8 [m, k]: the nearest code of every weight, halves up. */
export async function roundToGrid(w: Tensor, values: GridValues, grid: Grid, call: Call): Promise<Tensor> {
  const [m, k] = w.shape as [number, number];
  const codes = Tensor.zeros('u8', [m, k]);
  const operands = [w, values.scales, values.zeros, codes];
  await disposeOnFailure([codes], () => task('roundToGrid', operands, [grid.bits, groupColumns(grid, k)], call));
  return codes;
}

/** f64 [k] of a Hessian f64 [k, k]. */
export async function hessianDiagonal(hessian: Tensor, call: Call): Promise<Float64Array> {
  using diagonal = Tensor.zeros('f64', [hessian.shape[0] ?? 0]);
  await task('hessianDiagonal', [hessian, diagonal], [], call);
  return diagonal.read() as Float64Array;
}

/** prepared[i,j] = hessian[order[i], order[j]] + damping on the diagonal; dead columns get a one there. */
export async function prepareHessian(
  hessian: Tensor,
  order: Int32Array,
  damping: number,
  prepared: Tensor,
  call: Call,
): Promise<void> {
  using index = Tensor.copyOf(order);
  await task('prepareHessian', [hessian, index, prepared], [damping], call);
}

/** The upper triangular M with H = M Mᵀ, over H. @throws `LUTRA_E_NOT_POSITIVE_DEFINITE`, with H destroyed */
export async function reverseCholesky(hessian: Tensor, call: Call): Promise<void> {
  await task('reverseCholesky', [hessian], [], call);
}

export interface ColumnPass {
  /** All in pass order: f32 [m, k], f64 [k, k], and the group of each column. */
  w: Tensor;
  factor: Tensor;
  groupOf: Int32Array;
  values: GridValues;
}

/** GPTQ's column pass: codes u8 [m, k] in pass order. */
export async function gptqPass(pass: ColumnPass, grid: Grid, call: Call): Promise<Tensor> {
  const [m, k] = pass.w.shape as [number, number];
  const codes = Tensor.zeros('u8', [m, k]);
  using groups = Tensor.copyOf(pass.groupOf);
  using loss = Tensor.zeros('f64', [m]);
  const { scales, zeros } = pass.values;
  const operands = [pass.w, pass.factor, scales, zeros, groups, codes, loss];
  await disposeOnFailure([codes], () => task('gptqPass', operands, [grid.bits, groupColumns(grid, k)], call));
  return codes;
}

/** y[r,j] = x[r, index[j]], zero where index[j] is -1; f32 or u8. */
export async function gatherColumns(x: Tensor, index: Int32Array, call: Call): Promise<Tensor> {
  const gathered = Tensor.zeros(x.dtype, [x.shape[0] ?? 0, index.length]);
  using columns = Tensor.copyOf(index);
  await disposeOnFailure([gathered], () => task('gatherColumns', [x, columns, gathered], [], call));
  return gathered;
}

/** w - scale * (code - zero), f32 [m, k]. */
export async function residual(
  w: Tensor,
  { codes, scales, zeros }: GridValues & { codes: Tensor },
  grid: Grid,
  call: Call,
): Promise<Tensor> {
  const difference = Tensor.zeros('f32', w.shape);
  const numbers = [groupColumns(grid, w.shape[1] ?? 0)];
  await disposeOnFailure([difference], () => task('residual', [w, codes, scales, zeros, difference], numbers, call));
  return difference;
}

/** tr(x H xᵀ), or the sum of squares of x where there is no Hessian. */
export async function energy(x: Tensor, hessian: Tensor | undefined, call: Call): Promise<number> {
  const [value = Number.NaN] = hessian
    ? await task('quadraticForm', [x, hessian], [], call)
    : await task('sumOfSquares', [x], [], call);
  // Rounding in fp32 can leave a sum that is zero a little below it.
  return Math.max(0, value);
}

/** The largest magnitude in x, f32 and finite. */
export async function largestMagnitude(x: Tensor, call: Call): Promise<number> {
  const [largest = Number.NaN] = await task('largestMagnitude', [x], [], call);
  return largest;
}

/** The first element that is NaN or infinite, or -1. */
export async function findNonFinite(x: Tensor, call: Call): Promise<number> {
  const [index = -1] = await task('findNonFinite', [x], [], call);
  return index;
}

/** f32 native memory with the same elements; the tensor itself where it is that already. */
export async function asFloat32(x: Tensor, call: Call): Promise<Tensor> {
  if (x.dtype === 'f32' && !x.borrowed) return x;
  const source = x.borrowed ? Tensor.copyOf(x.read(), x.shape, x.dtype) : x;
  if (source.dtype === 'f32') return source;
  const converted = Tensor.zeros('f32', x.shape);
  using program = new Program().convert(source, converted);
  try {
    await disposeOnFailure([converted], () => program.runAsync(runOptions(call)));
  } finally {
    if (source !== x) source.dispose();
  }
  return converted;
}

export function runOptions({ signal, threads = 0 }: Call): { signal: AbortSignal | undefined; threads: number } {
  return { signal, threads };
}
