import { lutraError } from '../errors.js';
import type { Tensor } from '../tensor/index.js';
import type { Call, Grid, Storage } from './method.js';
import {
  asFloat32,
  disposeOnFailure,
  fitGrid,
  levelsOf,
  residual,
  roundToLevels,
  valuesOf,
  weightedSquares,
} from './passes.js';
import { chooseScaleDtype } from './scale-dtype.js';

/**
 * What rounding a layer to nearest costs the model at several widths, in nats a token, by bits: ½ Σ F ΔW², the divergence to
 * second order. Round to nearest stands for every solver.
 *
 * @param w f32, f16 or bf16 [outFeatures, inFeatures]
 * @param measured the `fisher` f32 of the same shape: the diagonal of the Fisher matrix, summed over `tokens`
 * @throws `LUTRA_E_NON_FINITE` where a loss is NaN or infinite, as with derivatives that overflow
 */
export async function measureWidths(
  w: Tensor,
  { fisher, tokens }: { fisher: Tensor; tokens: number },
  { grid, storage, widths }: { grid: Grid; storage: Storage; widths: readonly number[] },
  call: Call,
): Promise<Map<number, number>> {
  const weights = await asFloat32(w, call);
  try {
    const losses = new Map<number, number>();
    for (const bits of widths) {
      using difference = await roundingError(weights, { ...grid, bits }, storage, call);
      const loss = (await weightedSquares(difference, fisher, call)) / (2 * tokens);
      if (!Number.isFinite(loss)) throw unmeasured(loss, bits, call);
      losses.set(bits, loss);
    }
    return losses;
  } finally {
    if (weights !== w) weights.dispose();
  }
}

const unmeasured = (loss: number, bits: number, { where }: Call) =>
  lutraError('LUTRA_E_NON_FINITE', {
    message: `what ${bits} bits cost the model is a NaN or infinity`,
    where,
    found: loss,
    expected: 'a finite number',
    hint: 'Logits or derivatives overflow on this text: take another text, or a recipe without `allocation`.',
  });

async function roundingError(w: Tensor, grid: Grid, storage: Storage, call: Call): Promise<Tensor> {
  const { scaleDtype } = await chooseScaleDtype(w, grid, storage, call);
  const values = await fitGrid(w, grid, scaleDtype, 'none', call);
  const levels = await disposeOnFailure(valuesOf(values), () => levelsOf(values, grid, call));
  for (const tensor of valuesOf(values)) tensor.dispose();
  using table = levels;
  using codes = await roundToLevels(w, table, grid, call);
  return await residual(w, codes, table, grid, call);
}
