import { addon, bcqStartIds, cancellable, dtypeIds, levelKindIds, taskIds } from '../native/index.js';
import { Program } from '../ops/index.js';
import { Tensor, triangleRows } from '../tensor/index.js';
import type { Call, Grid, ScaleDtype, Values } from './method.js';

/**
 * The native passes of native/quantize, typed. All of them run off the JavaScript thread and end within one parallel
 * region when `call.signal` is raised. m is outFeatures, k inFeatures, groups the number of groups in a row. Hessians and
 * factors are f64 [k, k] or packed triangles, the rows of the upper one behind each other, [k (k + 1) / 2].
 */
export async function task(
  id: keyof typeof taskIds,
  tensors: Tensor[],
  numbers: number[],
  call: Call,
): Promise<number[]> {
  const operands = tensors.map((tensor) => tensor.native);
  const { signal, threads = 0, where } = call;
  return await cancellable(signal, (cancel) => addon().task(taskIds[id], operands, numbers, threads, cancel), where);
}

/** Runs what fills or uses new tensors; where that fails, nobody else will give them back. */
export async function disposeOnFailure<T>(made: readonly { dispose(): void }[], work: () => Promise<T>): Promise<T> {
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

export const valuesOf = (values: Values): Tensor[] =>
  values.storage === 'zeroCode'
    ? [values.scales, values.zeros]
    : [values.storage === 'planes' ? values.alphas : values.scales, values.offsets];

/**
 * How the range of a group's grid is chosen: it is the full one; the one of least 2.4-norm of the error; of least error in
 * the metric of the group's block of a Hessian; or of least square error, columns weighted by f64 [k].
 */
export type GridSearch = 'none' | 'norm' | { hessian: Tensor } | { importance: Tensor };

/** Scales and zeros of every group of w, rounded to `dtype`. */
export async function fitGrid(
  w: Tensor,
  grid: Grid,
  dtype: ScaleDtype,
  search: GridSearch,
  call: Call,
): Promise<Values & { storage: 'zeroCode' }> {
  const [m, k] = w.shape as [number, number];
  const scales = Tensor.zeros('f32', [m, groupsOf(grid, k)]);
  const zeros = Tensor.zeros('f32', [m, groupsOf(grid, k)]);
  const numbers = [grid.bits, groupColumns(grid, k), Number(grid.symmetric)];
  const [type, norm] = [dtypeIds[dtype], Number(search === 'norm')];
  await disposeOnFailure([scales, zeros], () => {
    if (typeof search === 'string') return task('fitGrid', [w, scales, zeros], [...numbers, norm, type], call);
    return 'hessian' in search
      ? task('fitGridToHessian', [w, search.hessian, scales, zeros], [...numbers, type], call)
      : task('fitGridWeighted', [w, search.importance, scales, zeros], [...numbers, type], call);
  });
  return { storage: 'zeroCode', scales, zeros };
}

/** f32 [m, groups, 2^bits]: what every code of every group stands for, as `dequantize` gives it. */
export async function levelsOf(values: Values, grid: Grid, call: Call): Promise<Tensor> {
  const [first, second] = valuesOf(values) as [Tensor, Tensor];
  const [m = 0, groups = 0] = first.shape;
  const levels = Tensor.zeros('f32', [m, groups, 2 ** grid.bits]);
  const centred = values.storage === 'planes' && grid.symmetric;
  await disposeOnFailure([levels], () =>
    centred
      ? task('centredLevels', [first, levels], [], call)
      : task('levels', [first, second, levels], [levelKindIds[values.storage]], call),
  );
  return levels;
}

/** The planes of a uniform grid, into f32 [m, groups, bits] and [m, groups]. */
export async function gridPlanes(
  scales: Tensor,
  zeros: Tensor,
  { alphas, offsets }: { alphas: Tensor; offsets: Tensor },
  call: Call,
): Promise<void> {
  await task('gridPlanes', [scales, zeros, alphas, offsets], [], call);
}

/** u8 [m, k]: the code of the nearest level of every weight; halfway between two, of the higher one. */
export async function roundToLevels(w: Tensor, levels: Tensor, grid: Grid, call: Call): Promise<Tensor> {
  const codes = Tensor.zeros('u8', w.shape);
  const numbers = [groupColumns(grid, w.shape[1] ?? 0)];
  await disposeOnFailure([codes], () => task('roundToLevels', [w, levels, codes], numbers, call));
  return codes;
}

/** Codes u8 [m, k] of the nearest levels that the values give. */
export async function roundToValues(w: Tensor, values: Values, grid: Grid, call: Call): Promise<Tensor> {
  using levels = await levelsOf(values, grid, call);
  return await roundToLevels(w, levels, grid, call);
}

/** f64 [k] of a Hessian. */
export async function hessianDiagonal(hessian: Tensor, call: Call): Promise<Float64Array> {
  using diagonal = Tensor.zeros('f64', [triangleRows(hessian)]);
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
  /** All in pass order: f32 [m, k], the factor, and the group of each column. */
  w: Tensor;
  factor: Tensor;
  groupOf: Int32Array;
  /** f32 [m, groups, 2^bits] */
  levels: Tensor;
}

/**
 * GPTQ's column pass with the levels as the quantizer: codes u8 [m, k] in pass order.
 *
 * @param wanted f32 [m, k], where given, receives what every code was rounded from.
 */
export async function gptqPass(
  { w, factor, groupOf, levels }: ColumnPass,
  call: Call,
  wanted?: Tensor,
): Promise<Tensor> {
  const [m, k] = w.shape as [number, number];
  const codes = Tensor.zeros('u8', [m, k]);
  using groups = Tensor.copyOf(groupOf);
  using loss = Tensor.zeros('f64', [m]);
  const operands = [w, factor, levels, groups, codes, loss];
  await disposeOnFailure([codes], () =>
    wanted ? task('gptqPassWanted', [...operands, wanted], [], call) : task('gptqPass', operands, [], call),
  );
  return codes;
}

/**
 * GPTQ's column pass, columns as they are, with every group's grid fitted to what its weights have become when the pass enters
 * it, in `search` of the 2.4-norm or to the full range; scales are rounded to `dtype`.
 */
export async function gptqDynamicPass(
  w: Tensor,
  factor: Tensor,
  { grid, dtype, search }: { grid: Grid; dtype: ScaleDtype; search: boolean },
  call: Call,
): Promise<{ codes: Tensor; values: Values }> {
  const [m, k] = w.shape as [number, number];
  const codes = Tensor.zeros('u8', [m, k]);
  const scales = Tensor.zeros('f32', [m, groupsOf(grid, k)]);
  const zeros = Tensor.zeros('f32', [m, groupsOf(grid, k)]);
  using loss = Tensor.zeros('f64', [m]);
  const numbers = [grid.bits, groupColumns(grid, k), Number(grid.symmetric), Number(search), dtypeIds[dtype]];
  await disposeOnFailure([codes, scales, zeros], () =>
    task('gptqDynamicPass', [w, factor, scales, zeros, codes, loss], numbers, call),
  );
  return { codes, values: { storage: 'zeroCode', scales, zeros } };
}

export interface BcqFit {
  rounds: number;
  start: keyof typeof bcqStartIds;
  dtype: ScaleDtype;
}

/** Alphas and offsets of every group of w, fitted with columns weighted by `importance` f64 [k] and nearest codes. */
export async function bcqFit(w: Tensor, importance: Tensor, grid: Grid, fit: BcqFit, call: Call): Promise<Values> {
  const [m, k] = w.shape as [number, number];
  const alphas = Tensor.zeros('f32', [m, groupsOf(grid, k), grid.bits]);
  const offsets = Tensor.zeros('f32', [m, groupsOf(grid, k)]);
  const numbers = [grid.bits, groupColumns(grid, k), Number(grid.symmetric), fit.rounds];
  numbers.push(bcqStartIds[fit.start], dtypeIds[fit.dtype]);
  await disposeOnFailure([alphas, offsets], () => task('bcqFit', [w, importance, alphas, offsets], numbers, call));
  return { storage: 'planes', alphas, offsets };
}

export interface HqqFit {
  iterations: number;
  norm: number;
  beta: number;
  kappa: number;
}

/** Scales and real offsets of every group of w by half-quadratic splitting. */
export async function hqqFit(w: Tensor, grid: Grid, fit: HqqFit, dtype: ScaleDtype, call: Call): Promise<Values> {
  const [m, k] = w.shape as [number, number];
  const scales = Tensor.zeros('f32', [m, groupsOf(grid, k)]);
  const offsets = Tensor.zeros('f32', [m, groupsOf(grid, k)]);
  const { iterations, norm, beta, kappa } = fit;
  const numbers = [grid.bits, groupColumns(grid, k), iterations, norm, beta, kappa, dtypeIds[dtype]];
  await disposeOnFailure([scales, offsets], () => task('hqqFit', [w, scales, offsets], numbers, call));
  return { storage: 'realOffset', scales, offsets };
}

/** What a refit of planes changes, in place. */
export interface PlanesResult {
  codes: Tensor;
  alphas: Tensor;
  offsets: Tensor;
}

/** Least squares of alphas and offsets in the metric of the Hessian with `damping` on its diagonal, codes given. */
export async function bcqRefit(
  w: Tensor,
  { hessian, damping }: { hessian: Tensor; damping: number },
  { codes, alphas, offsets }: PlanesResult,
  { grid, dtype }: { grid: Grid; dtype: ScaleDtype },
  call: Call,
): Promise<void> {
  const numbers = [groupColumns(grid, w.shape[1] ?? 0), Number(grid.symmetric), damping, dtypeIds[dtype]];
  await task('bcqRefit', [w, hessian, codes, alphas, offsets], numbers, call);
}

/** y[r,j] = x[r, index[j]], zero where index[j] is -1; f32 or u8. */
export async function gatherColumns(x: Tensor, index: Int32Array, call: Call): Promise<Tensor> {
  const gathered = Tensor.zeros(x.dtype, [x.shape[0] ?? 0, index.length]);
  using columns = Tensor.copyOf(index);
  await disposeOnFailure([gathered], () => task('gatherColumns', [x, columns, gathered], [], call));
  return gathered;
}

/** w minus the level of its code, f32 [m, k]. */
export async function residual(w: Tensor, codes: Tensor, levels: Tensor, grid: Grid, call: Call): Promise<Tensor> {
  const difference = Tensor.zeros('f32', w.shape);
  await disposeOnFailure([difference], () => residualInto(difference, { w, codes, levels }, grid, call));
  return difference;
}

/** The same over `difference`. */
export async function residualInto(
  difference: Tensor,
  { w, codes, levels }: { w: Tensor; codes: Tensor; levels: Tensor },
  grid: Grid,
  call: Call,
): Promise<void> {
  await task('residual', [w, codes, levels, difference], [groupColumns(grid, w.shape[1] ?? 0)], call);
}

/** What a matrix is measured by: a Hessian of its inputs, and one of each head's rows, f64 [heads, d, d]. */
export interface Metric {
  hessian?: Tensor | undefined;
  /** Not without a Hessian. */
  rowHessian?: Tensor | undefined;
}

/** The sum over heads of tr(G x H xᵀ); tr(x H xᵀ) without row Hessians G, the sum of squares of x without any Hessian. */
export async function energy(x: Tensor, { hessian, rowHessian }: Metric, call: Call): Promise<number> {
  const [value = Number.NaN] = !hessian
    ? await task('sumOfSquares', [x], [], call)
    : rowHessian
      ? await task('quadraticFormOfHeads', [x, hessian, rowHessian], [], call)
      : await task('quadraticForm', [x, hessian], [], call);
  // Rounding in fp32 can leave a sum that is zero a little below it.
  return Math.max(0, value);
}

/** x H xᵀ of every row of x f32 [m, k], into `forms` f64 [m]. */
export async function quadraticForms(x: Tensor, hessian: Tensor, forms: Tensor, call: Call): Promise<void> {
  await task('quadraticFormRows', [x, hessian, forms], [], call);
}

/** The sum of weights · x², elementwise, both f32 of one shape. */
export async function weightedSquares(x: Tensor, weights: Tensor, call: Call): Promise<number> {
  const [value = Number.NaN] = await task('weightedSquares', [x, weights], [], call);
  return value;
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
