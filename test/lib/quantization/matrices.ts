import { Random } from '../../../lib/calibration/index.js';
import { dequantize } from '../../../lib/ops/index.js';
import { type LayerReport, type QuantizeOptions, quantize, type RecipeInput } from '../../../lib/quantization/index.js';
import { Tensor } from '../../../lib/tensor/index.js';

/** A matrix of normal numbers, row-major. */
export function normal(rows: number, cols: number, seed: number, scale = 1): Float32Array {
  const random = new Random(seed);
  return Float32Array.from({ length: rows * cols }, () => {
    const radius = Math.sqrt(-2 * Math.log(1 - random.next()));
    return scale * radius * Math.cos(2 * Math.PI * random.next());
  });
}

/** xᵀx of `tokens` correlated inputs, as activations are: a few strong directions over noise. f64 [k, k]. */
export function gram(k: number, tokens: number, seed: number): Float64Array {
  const factors = 4;
  const directions = normal(factors, k, seed, 1);
  const loads = normal(tokens, factors, seed + 1, 2);
  const x = normal(tokens, k, seed + 2, 0.5);
  for (let t = 0; t < tokens; t++)
    for (let f = 0; f < factors; f++)
      for (let i = 0; i < k; i++) x[t * k + i]! += loads[t * factors + f]! * directions[f * k + i]!;
  const h = new Float64Array(k * k);
  for (let t = 0; t < tokens; t++)
    for (let i = 0; i < k; i++) for (let j = 0; j < k; j++) h[i * k + j]! += x[t * k + i]! * x[t * k + j]!;
  return h;
}

/** tr(x H xᵀ) in fp64; the sum of squares without H. */
export function energy(x: ArrayLike<number>, k: number, h?: Float64Array): number {
  let sum = 0;
  for (let row = 0; row < x.length; row += k)
    for (let i = 0; i < k; i++) {
      if (!h) sum += x[row + i]! * x[row + i]!;
      else for (let j = 0; j < k; j++) sum += x[row + i]! * h[i * k + j]! * x[row + j]!;
    }
  return sum;
}

export interface Quantized {
  /** f32 [m, k]: what the packed weights stand for. */
  weights: Float32Array;
  report: LayerReport;
  bytes: Uint8Array[];
}

/** Quantizes an array through the public function and reads everything back. */
export async function quantized(
  w: Float32Array,
  k: number,
  recipe: RecipeInput,
  hessian?: Float64Array,
  options: QuantizeOptions = {},
): Promise<Quantized> {
  let report: LayerReport | undefined;
  using h = hessian && Tensor.copyOf(hessian, [k, k]);
  using q = await quantize(Tensor.from(w, [w.length / k, k]), recipe, {
    ...options,
    statistics: { hessian: h },
    onReport: (r) => {
      report = r;
    },
  });
  using back = dequantize(q);
  const bytes = [q.codes, q.scales, q.offsets].flatMap((t) => (t ? [new Uint8Array(t.read().slice().buffer)] : []));
  return { weights: back.read() as Float32Array, report: report!, bytes };
}
