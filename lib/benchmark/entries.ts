import { lutGemm } from '../ops/index.js';
import { Tensor } from '../tensor/index.js';
import { burst, idleBurst } from './burst.js';
import { type BenchCase, modeName } from './cases.js';
import { Random } from './random.js';
import type { Contestant } from './rounds.js';
import type { Weights } from './weights.js';

/** A contestant that computes a product with quantized weights; its work is the bytes of one matrix. */
export interface Entry extends Contestant {
  /** Who computes: `lutra`, or the peer's name. */
  by: string;
  /** How: the mode of lutra, or the kernel of the peer. */
  mode: string;
  /** Matrices rotated over. */
  matrices: number;
  /** NMSE of the last measured call's result against fp64. */
  error(): number | Promise<number>;
  /** Why there is no result, where a peer failed. */
  failure?: string | null;
  dispose(): void | Promise<void>;
}

/** `lutGemm` from the JavaScript call to its return, with a preallocated result. */
export function lutGemmEntry(one: BenchCase, weights: Weights): Entry {
  const { tokens, shape, mode, batchInvariant, threads } = one;
  const { matrices } = weights;
  const x = Tensor.copyOf(new Random(tokens).normals(tokens * shape.cols), [tokens, shape.cols]);
  const out = Tensor.zeros('f32', [tokens, shape.rows]);
  const options = { mode, batchInvariant, out, threads };
  let turn = 0;
  const call = () => {
    const matrix = matrices[turn++ % matrices.length];
    if (matrix) lutGemm(x, matrix, options);
  };
  return {
    by: 'lutra',
    mode: modeName(one),
    work: weights.matrixBytes,
    matrices: matrices.length,
    burst(length) {
      // What a call leaves out stays poisoned, and shows in the error.
      out.fill(Number.NaN);
      return one.caches === 'idle' ? idleBurst(call, length) : burst(call, length);
    },
    error: () => weights.errorOf(x, out),
    dispose() {
      x.dispose();
      out.dispose();
    },
  };
}
