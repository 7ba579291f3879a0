import { dtypeIds } from '../../native/index.js';
import { Program } from '../../ops/index.js';
import { type Dtype, Tensor } from '../../tensor/index.js';
import type { Call, Grid, ScaleDtype } from '../method.js';
import { asFloat32, disposeOnFailure, groupColumns, runOptions, task } from '../passes.js';

/** The native passes of native/linalg/rotation.h and native/quantize/awq.h, typed. Numbers a row or column are JavaScript's. */

/** Along which axis the vectors of a matrix lie that are rotated. */
export type RotationAxis = 'rows' | 'columns';

/**
 * Rotates every `signs.length` consecutive elements of x [m, k] along an axis, into y of any float type: x · Q for columns,
 * Qᵀ · x for rows, with Q = diag(signs) · K and K the symmetric orthogonal matrix of native/linalg/rotation.h.
 */
export async function rotate(x: Tensor, axis: RotationAxis, signs: Float64Array, y: Tensor, call: Call): Promise<void> {
  using by = Tensor.copyOf(signs);
  await task('rotate', [x, by, y], [axis === 'rows' ? 0 : 1], call);
}

/** y = diag(rows) x diag(columns) of x [m, k], ones where a side is null; y is rounded to its own float type, and may be x. */
export async function scaleMatrix(
  x: Tensor,
  { rows, columns }: { rows?: Float64Array | null; columns?: Float64Array | null },
  y: Tensor,
  call: Call,
): Promise<void> {
  const [m = 0, k = 0] = x.shape;
  using left = Tensor.copyOf(rows ?? new Float64Array(m).fill(1));
  using right = Tensor.copyOf(columns ?? new Float64Array(k).fill(1));
  await task('scaleMatrix', [x, left, right, y], [], call);
}

/** y = Q(w diag(s)) diag(s)^-1, all f32 [m, k], with Q round to nearest on fitted grids. */
export async function roundScaled(
  w: Tensor,
  s: Float64Array,
  y: Tensor,
  { grid, scaleDtype }: { grid: Grid; scaleDtype: ScaleDtype },
  call: Call,
): Promise<void> {
  using scales = Tensor.copyOf(s);
  await task('roundScaled', [w, scales, y], gridNumbers(grid, scaleDtype, w), call);
}

/** Clips the groups of w f32 [m, k] in place. @returns how many of them were clipped. */
export async function clipToHessian(
  w: Tensor,
  hessian: Tensor,
  { grid, scaleDtype }: { grid: Grid; scaleDtype: ScaleDtype },
  call: Call,
): Promise<number> {
  const [clipped = 0] = await task('clipToHessian', [w, hessian, w], gridNumbers(grid, scaleDtype, w), call);
  return clipped;
}

/** Mean magnitude of every column of x f32 [tokens, k]. */
export async function meanMagnitudes(x: Tensor, call: Call): Promise<Float64Array> {
  using mean = Tensor.zeros('f64', [x.shape[1] ?? 0]);
  await task('meanMagnitudes', [x, mean], [], call);
  return mean.read() as Float64Array;
}

/** The sum of (a - b)² over all elements, f32. */
export async function squaredDistance(a: Tensor, b: Tensor, call: Call): Promise<number> {
  const [sum = Number.NaN] = await task('squaredDistance', [a, b], [], call);
  return sum;
}

/** The elements of a norm or a bias. */
export async function numbersOf(x: Tensor, call: Call): Promise<Float64Array> {
  const wide = await asFloat32(x, call);
  try {
    return Float64Array.from(wide.read());
  } finally {
    if (wide !== x) wide.dispose();
  }
}

/** A vector rounded to the type in which it is stored. */
export async function stored(values: Float64Array, dtype: Dtype, call: Call): Promise<Tensor> {
  const result = Tensor.zeros(dtype, [values.length]);
  return await disposeOnFailure([result], async () => {
    using wide = Tensor.copyOf(Float32Array.from(values));
    using program = new Program().convert(wide, result);
    await program.runAsync(runOptions(call));
    return result;
  });
}

const gridNumbers = (grid: Grid, scaleDtype: ScaleDtype, w: Tensor): number[] => [
  grid.bits,
  groupColumns(grid, w.shape[1] ?? 0),
  Number(grid.symmetric),
  dtypeIds[scaleDtype],
];
