import type { Tensor } from '../tensor/index.js';
import type { Call, Grid, Storage } from './method.js';
import { asFloat32, disposeOnFailure, energy, fitGrid, levelsOf, residual, roundToLevels, valuesOf } from './passes.js';
import { chooseScaleDtype } from './scale-dtype.js';

/** What rounding a layer to nearest costs its output, width by width. */
export interface Sensitivity {
  /** tr(W H Wᵀ): the energy of the layer's output. */
  energy: number;
  /** tr(ΔW H ΔWᵀ) / tr(W H Wᵀ) by bits; zero for a silent layer. */
  errors: ReadonlyMap<number, number>;
}

/**
 * Measures a layer at several widths, round to nearest standing for every solver.
 *
 * @param w f32, f16 or bf16 [outFeatures, inFeatures]
 * @param hessian f64 [inFeatures, inFeatures] of its inputs
 */
export async function measureWidths(
  w: Tensor,
  hessian: Tensor,
  { grid, storage, widths }: { grid: Grid; storage: Storage; widths: readonly number[] },
  call: Call,
): Promise<Sensitivity> {
  const weights = await asFloat32(w, call);
  try {
    const whole = await energy(weights, { hessian }, call);
    const errors = new Map<number, number>();
    for (const bits of widths) {
      const error = await roundingError(weights, hessian, { ...grid, bits }, storage, call);
      errors.set(bits, error === 0 ? 0 : error / whole);
    }
    return { energy: whole, errors };
  } finally {
    if (weights !== w) weights.dispose();
  }
}

async function roundingError(w: Tensor, hessian: Tensor, grid: Grid, storage: Storage, call: Call): Promise<number> {
  const { scaleDtype } = await chooseScaleDtype(w, grid, storage, call);
  const values = await fitGrid(w, grid, scaleDtype, 'none', call);
  const levels = await disposeOnFailure(valuesOf(values), () => levelsOf(values, grid, call));
  for (const tensor of valuesOf(values)) tensor.dispose();
  using table = levels;
  using codes = await roundToLevels(w, table, grid, call);
  using difference = await residual(w, codes, table, grid, call);
  return await energy(difference, { hessian }, call);
}
