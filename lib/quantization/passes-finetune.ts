import { levelKindIds } from '../native/index.js';
import type { Tensor } from '../tensor/index.js';
import type { Call, Grid, Values } from './method.js';
import { groupColumns, levelsOf, task } from './passes.js';

/** w f32 [m, k]: what codes u8 [m, k] stand for with these values, added to what is there where `add` is set. */
export async function weightsOf(
  codes: Tensor,
  values: Values,
  grid: Grid,
  { w, add }: { w: Tensor; add: boolean },
  call: Call,
): Promise<void> {
  using levels = await levelsOf(values, grid, call);
  await task('levelWeights', [codes, levels, w], [groupColumns(grid, codes.shape[1] ?? 0), Number(add)], call);
}

/**
 * The derivatives of a loss by the values of all groups from `dw`, those by the weights f32 [m, k], with codes u8 [m, k]
 * frozen (decoupleQ, arXiv 2404.12759, section 3.3).
 *
 * @param second where the derivatives by the offsets go; a symmetric grid has none: its zeros, or any tensor for planes.
 */
export async function valueGradients(
  dw: Tensor,
  codes: Tensor,
  { storage, grid }: { storage: Values['storage']; grid: Grid },
  { first, second }: { first: Tensor; second: Tensor },
  call: Call,
): Promise<void> {
  const kind = storage === 'planes' && grid.symmetric ? 'centredPlanes' : storage;
  const numbers = [levelKindIds[kind], grid.bits, groupColumns(grid, codes.shape[1] ?? 0)];
  await task('valueGradients', [dw, codes, first, second], numbers, call);
}

/** Adam (arXiv 1412.6980); `weightDecay` times the parameter adds to its gradient. */
export interface AdamOptions {
  learningRate: number;
  betas: readonly [number, number];
  epsilon: number;
  weightDecay: number;
}

/** Step number `step`, from 1, of f32 parameters; `moments` f32 [2, elements] are zero before the first. */
export async function adamStep(
  step: number,
  { parameter, gradient, moments }: { parameter: Tensor; gradient: Tensor; moments: Tensor },
  { learningRate, betas, epsilon, weightDecay }: AdamOptions,
  call: Call,
): Promise<void> {
  const numbers = [learningRate, ...betas, epsilon, weightDecay, step];
  await task('adamStep', [gradient, parameter, moments], numbers, call);
}
