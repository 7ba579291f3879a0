import { Program } from '../ops/index.js';
import { Tensor } from '../tensor/index.js';
import type { Call } from './method.js';
import { asFloat32, energy, runOptions, task } from './passes.js';

/**
 * What quantization changed of a layer's output, relative to the output: tr((W − Ŵ) H (W − Ŵ)ᵀ) / tr(W H Wᵀ). Zero where
 * nothing changed.
 *
 * @param w f32, f16 or bf16 [outFeatures, inFeatures], native memory.
 * @param quantized f32, the weights that the packed ones stand for.
 * @param hessian f64 [inFeatures, inFeatures], or a packed triangle.
 */
export async function proxyLoss(w: Tensor, quantized: Tensor, hessian: Tensor, call: Call): Promise<number> {
  const original = await asFloat32(w, call);
  try {
    using difference = await differenceOf(original, quantized, call);
    const error = await energy(difference, { hessian }, call);
    return error === 0 ? 0 : error / (await energy(original, { hessian }, call));
  } finally {
    if (original !== w) original.dispose();
  }
}

/** w − x, each element rounded once. */
async function differenceOf(w: Tensor, x: Tensor, call: Call): Promise<Tensor> {
  const [rows = 0, cols = 0] = x.shape;
  using negative = Tensor.copyOf(new Float64Array(rows).fill(-1));
  using ones = Tensor.copyOf(new Float64Array(cols).fill(1));
  const difference = Tensor.zeros('f32', x.shape);
  using program = new Program().add(w, difference);
  try {
    await task('scaleMatrix', [x, negative, ones, difference], [], call);
    await program.runAsync(runOptions(call));
    return difference;
  } catch (error) {
    difference.dispose();
    throw error;
  }
}
