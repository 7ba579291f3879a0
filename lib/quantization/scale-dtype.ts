import type { Tensor } from '../tensor/index.js';
import type { Call, Grid, ScaleDtype, Storage, Warning } from './method.js';
import { largestMagnitude } from './passes.js';

/** The largest finite f16 and its smallest normal number. */
export const f16Largest = 65504;
const f16SmallestNormal = 2 ** -14;

/**
 * The type that a matrix's scales, alphas and real offsets are stored in: f16 while it holds the largest scale with all its 11 bits, else bf16,
 * which has the same size and the range of f32. Smaller scales of the matrix may then be subnormal: what they lose is
 * small against the rounding of the largest.
 *
 * @param w f32, finite.
 */
export async function chooseScaleDtype(
  w: Tensor,
  grid: Grid,
  storage: Storage,
  call: Call,
): Promise<{ scaleDtype: ScaleDtype; warnings: Warning[] }> {
  const largest = await largestMagnitude(w, call);
  const steps = 2 ** grid.bits - 1;
  // A grid spans between one and two times the largest magnitude of its group; real offsets and alphas reach as far.
  const reach = storage === 'zeroCode' ? (2 * largest) / steps : 2 * largest;
  const fits = largest / steps >= f16SmallestNormal && reach <= f16Largest;
  if (fits || largest === 0) return { scaleDtype: 'f16', warnings: [] };
  const message = `weights up to ${largest} need numbers that f16 cannot hold: they are stored as bf16`;
  return { scaleDtype: 'bf16', warnings: [{ kind: 'scaleDtype', message }] };
}
