import { lutraError } from '../errors.js';
import { checkThreads } from '../ops/index.js';
import { type QuantizedTensor, Tensor } from '../tensor/index.js';
import { eachHead } from './joined-rows.js';
import type { Call, Statistics } from './method.js';
import { checkOperands } from './operands.js';
import { pack } from './pack.js';
import { normalizeRecipe, type Recipe, type RecipeInput } from './recipe.js';
import { disposeSolved, type LayerReport, solveHeads, solveWith } from './solve-matrix.js';

export interface QuantizeOptions {
  statistics?: Statistics | undefined;
  signal?: AbortSignal | undefined;
  /** Lanes to use at most; the whole pool by default. Never changes the result. */
  threads?: number | undefined;
  /** The matrix's name, for errors and for the recipe's overrides. */
  where?: string | undefined;
  onReport?: ((report: LayerReport) => void) | undefined;
}

/**
 * Quantizes one weight matrix.
 *
 * @param w f32, f16 or bf16 [outFeatures, inFeatures].
 * @param recipe in full or in short form; see `normalizeRecipe` for its errors.
 * @returns packed weights in native memory, the caller's to dispose.
 * @throws `LUTRA_E_NON_FINITE` for a NaN or infinity in `w` or in the Hessian, with its index; `LUTRA_E_SHAPE`,
 *   `LUTRA_E_DTYPE`, `LUTRA_E_NOT_POSITIVE_DEFINITE`, and `LUTRA_E_OPTION` where a needed statistic is missing.
 */
export async function quantize(
  w: Tensor,
  recipe: RecipeInput | Recipe,
  options: QuantizeOptions = {},
): Promise<QuantizedTensor> {
  const { where = 'quantize.w', signal, threads } = options;
  checkThreads(threads ?? 0, 'quantize.threads');
  const full = normalizeRecipe(recipe);
  refuseModelSlots(full);
  const call = { where, signal, threads };
  checkOperands(w, options.statistics ?? {}, where);
  if (full.lowRank && options.statistics?.hessian?.shape.length === 3) throw headsWithLowRank(where);
  const { statistics = {} } = options;
  const { hessian: given, rowHessian: givenRows } = statistics;
  const [weights, hessian, rowHessian] = [owned(w), given && owned(given), givenRows && owned(givenRows)];
  try {
    const { tensor, report } = await quantizeMatrix(weights, full, { ...statistics, hessian, rowHessian }, call);
    options.onReport?.(report);
    return tensor;
  } finally {
    if (weights !== w) weights.dispose();
    if (hessian !== given) hessian?.dispose();
    if (rowHessian !== givenRows) rowHessian?.dispose();
  }
}

/** What works on blocks or on whole models has nothing to do with a matrix alone. */
function refuseModelSlots({ transforms, finetune, allocation }: Recipe): void {
  const slot = transforms.length ? 'transforms' : finetune.length ? 'finetune' : allocation ? 'allocation' : null;
  if (slot)
    throw lutraError('LUTRA_E_OPTION', {
      message: `one matrix alone takes no ${slot}`,
      where: `recipe.${slot}`,
      hint: 'Use quantizeModel, or leave it out.',
    });
}

/** The tensor, or a copy of it in native memory where it is an array that may change or go away during the call. */
const owned = (x: Tensor): Tensor => (x.borrowed ? Tensor.copyOf(x.read(), x.shape, x.dtype) : x);

/** Quantizes, packs and measures one matrix. `recipe` is normalised, `call.where` the layer's name. */
async function quantizeMatrix(
  w: Tensor,
  recipe: Recipe,
  statistics: Statistics,
  call: Call,
): Promise<{ tensor: QuantizedTensor; report: LayerReport }> {
  const byHead = statistics.hessian?.shape.length === 3;
  const solved = byHead
    ? await solveHeads(w, recipe, eachHead(statistics), call)
    : await solveWith(w, recipe, statistics, call);
  try {
    return { tensor: await pack(solved, call), report: solved.report };
  } finally {
    disposeSolved(solved);
  }
}

const headsWithLowRank = (where: string): Error =>
  lutraError('LUTRA_E_OPTION', {
    message: 'low-rank methods take one Hessian for the whole matrix',
    where: `${where}: statistics.hessian`,
    found: 'a Hessian for every head',
  });
