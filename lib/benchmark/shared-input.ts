import { lutGemm, prepareActivations } from '../ops/index.js';
import { Tensor } from '../tensor/index.js';
import { burst } from './burst.js';
import { type BenchCase, layoutOf, modeName } from './cases.js';
import type { Entry } from './entries.js';
import { Random } from './random.js';
import { Weights } from './weights.js';

/** As q, k and v. */
const matrices = 3;

/**
 * Three matrices of the case's shape times the same x, out of warm caches: with the activations prepared once for all, or
 * in calls that know nothing of each other. The work is the bytes of all three.
 */
export async function sharedInputEntry(one: BenchCase, prepared: boolean): Promise<Entry> {
  const { tokens, shape, mode, batchInvariant, threads } = one;
  const layers: { weights: Weights; out: Tensor }[] = [];
  for (let i = 0; i < matrices; i++)
    layers.push({
      weights: await Weights.make(layoutOf(one), one.rank, false),
      out: Tensor.zeros('f32', [tokens, shape.rows]),
    });
  const x = Tensor.copyOf(new Random(tokens).normals(tokens * shape.cols), [tokens, shape.cols]);
  const all = layers.flatMap(({ weights }) => weights.matrices);
  const options = { mode, batchInvariant, threads };
  const together = () => {
    using activations = prepareActivations(x, all, options);
    for (const [i, matrix] of all.entries()) activations.multiply(matrix, { out: layers[i]?.out as Tensor, threads });
  };
  const apart = () => {
    for (const [i, matrix] of all.entries()) lutGemm(x, matrix, { ...options, out: layers[i]?.out as Tensor });
  };
  return {
    by: 'lutra',
    mode: `${modeName(one)} ${prepared ? 'prepared once' : 'three calls'}`,
    work: layers.reduce((sum, { weights }) => sum + weights.byteLength, 0),
    matrices,
    burst(length) {
      for (const { out } of layers) out.fill(Number.NaN);
      return burst(prepared ? together : apart, length);
    },
    error: () => Math.max(...layers.map(({ weights, out }) => weights.errorOf(x, out))),
    dispose() {
      x.dispose();
      for (const { weights, out } of layers) {
        weights.dispose();
        out.dispose();
      }
    },
  };
}
