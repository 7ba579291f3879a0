import { lutGemm, prepareActivations, stackRows } from '../ops/index.js';
import { Tensor } from '../tensor/index.js';
import { burst } from './burst.js';
import { type BenchCase, layoutOf, modeName } from './cases.js';
import type { Entry } from './entries.js';
import { Random } from './random.js';
import { Weights } from './weights.js';

/** As q, k and v. */
const matrices = 3;

/** Activations prepared once for all, the matrices stacked to one, or calls that know nothing of each other. */
export type SharedInputWay = 'prepared once' | 'stacked' | 'three calls';

/** Three matrices of the case's shape times the same x, out of warm caches. The work is the bytes of all three. */
export async function sharedInputEntry(one: BenchCase, way: SharedInputWay): Promise<Entry> {
  const { tokens, shape, mode, batchInvariant, threads } = one;
  const layers: Weights[] = [];
  for (let i = 0; i < matrices; i++) layers.push(await Weights.make(layoutOf(one), one.rank, false));
  const x = Tensor.copyOf(new Random(tokens).normals(tokens * shape.cols), [tokens, shape.cols]);
  const all = layers.flatMap((weights) => weights.matrices);
  const stacked = way === 'stacked' ? stackRows(all) : null;
  const outs = (stacked ? [stacked] : all).map(({ layout }) => Tensor.zeros('f32', [tokens, layout.rows]));
  const out = (i: number) => outs[i] as Tensor;
  const options = { mode, batchInvariant, threads };
  const prepared = () => {
    using activations = prepareActivations(x, all, options);
    for (const [i, matrix] of all.entries()) activations.multiply(matrix, { out: out(i), threads });
  };
  const multiplied = stacked ? [stacked] : all;
  const called = () => {
    for (const [i, matrix] of multiplied.entries()) lutGemm(x, matrix, { ...options, out: out(i) });
  };
  return {
    by: 'lutra',
    mode: `${modeName(one)} ${way}`,
    work: layers.reduce((sum, { byteLength }) => sum + byteLength, 0),
    matrices,
    burst(length) {
      for (const result of outs) result.fill(Number.NaN);
      return burst(way === 'prepared once' ? prepared : called, length);
    },
    error() {
      const errors = layers.map((weights, i) => {
        using part = stacked ? rowsOf(out(0), i * shape.rows, shape.rows) : null;
        return weights.errorOf(x, part ?? out(i));
      });
      return Math.max(...errors);
    },
    dispose() {
      stacked?.dispose();
      for (const owned of [x, ...layers, ...outs]) owned.dispose();
    },
  };
}

/** What rows [first, first + rows) of stacked weights gave each token. */
function rowsOf(y: Tensor, first: number, rows: number): Tensor {
  const [tokens = 0, all = 0] = y.shape;
  const part = new Float32Array(tokens * rows);
  for (let token = 0; token < tokens; token++) part.set(y.read(token * all + first, rows), token * rows);
  return Tensor.copyOf(part, [tokens, rows]);
}
