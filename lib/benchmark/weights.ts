import { setImmediate as turn } from 'node:timers/promises';
import { dequantize, Program } from '../ops/index.js';
import {
  codesBytes,
  offsetsElements,
  type QuantizedLayout,
  QuantizedTensor,
  type SubBranch,
  scalesElements,
  Tensor,
} from '../tensor/index.js';
import { Random } from './random.js';
import { normalizedMeanSquaredError } from './statistics.js';

/** Weights rotated over in `cold`: more than any cache holds. */
export const coldBytes = 1.05e9;
/** Matrices rotated over at most. Each is several objects and allocations, which for tiny ones outweigh their bytes. */
const coldMatrices = 4096;
/** Matrices of so many bytes that `cold` rotates over: fewer than coldBytes holds where they are tiny. */
export const coldCount = (bytes: number): number => Math.min(coldMatrices, Math.ceil(coldBytes / bytes));
/** Milliseconds after which making weights lets the event loop turn. */
const turnMilliseconds = 20;
/** Rows and tokens at most that a result is checked on. */
const checkedRows = 64;
const checkedTokens = 16;

/** Random weights of one layout, as often as it takes to keep caches cold, or once. */
export class Weights {
  readonly matrices: readonly QuantizedTensor[];
  readonly #layout: QuantizedLayout;
  readonly #rows: { row: number; weights: Float32Array }[];

  private constructor(layout: QuantizedLayout, matrices: readonly [QuantizedTensor, ...QuantizedTensor[]]) {
    this.#layout = layout;
    this.#rows = sampledRows(matrices[0]);
    this.matrices = matrices;
  }

  /**
   * @param rank of the sub-branch; 0 for none
   * @throws the signal's reason, with nothing left behind
   */
  static async make(layout: QuantizedLayout, rank: number, cold: boolean, signal?: AbortSignal): Promise<Weights> {
    const first = randomMatrix(layout, rank, new Random(layout.bits));
    const matrices: [QuantizedTensor, ...QuantizedTensor[]] = [first];
    try {
      const copy = cold ? copierOf(first) : null;
      let begin = performance.now();
      while (copy && matrices.length < coldCount(first.byteLength)) {
        if (performance.now() - begin > turnMilliseconds) {
          await turn();
          signal?.throwIfAborted();
          begin = performance.now();
        }
        matrices.push(copy());
      }
      return new Weights(layout, matrices);
    } catch (error) {
      for (const matrix of matrices) matrix.dispose();
      throw error;
    }
  }

  /** Bytes of one matrix. */
  get matrixBytes(): number {
    return this.matrices[0]?.byteLength ?? 0;
  }
  get byteLength(): number {
    return this.matrices.length * this.matrixBytes;
  }

  /** Error of y = x · Wᵀ on rows and tokens spread over the whole result, against fp64. */
  errorOf(x: Tensor, y: Tensor): number {
    const [tokens = 0] = x.shape;
    const found: number[] = [];
    const exact: number[] = [];
    for (const token of spread(tokens, checkedTokens)) {
      const input = x.read(token * this.#layout.cols, this.#layout.cols);
      const output = y.read(token * this.#layout.rows, this.#layout.rows);
      for (const { row, weights } of this.#rows) {
        found.push(output[row] ?? Number.NaN);
        exact.push(weights.reduce((sum, weight, k) => sum + weight * (input[k] ?? Number.NaN), 0));
      }
    }
    return normalizedMeanSquaredError(found, exact);
  }

  dispose(): void {
    for (const matrix of this.matrices) matrix.dispose();
  }
}

/** At most `count` of the numbers below `limit`, the first and the last among them. */
function spread(limit: number, count: number): number[] {
  const taken = Math.min(limit, count);
  return Array.from({ length: taken }, (_, i) => (taken > 1 ? Math.floor((i * (limit - 1)) / (taken - 1)) : 0));
}

function sampledRows(matrix: QuantizedTensor): { row: number; weights: Float32Array }[] {
  const { rows, cols } = matrix.layout;
  using all = dequantize(matrix);
  return spread(rows, checkedRows).map((row) => ({ row, weights: all.read(row * cols, cols) as Float32Array }));
}

function randomMatrix(layout: QuantizedLayout, rank: number, random: Random): QuantizedTensor {
  const { rows, cols, bits } = layout;
  const planes = layout.kind === 'planes' ? bits : 1;
  const groups = layout.groupSize === -1 ? 1 : Math.ceil(cols / layout.groupSize);
  const scales = new Float32Array(rows * groups * planes);
  const offsets = new Float32Array(rows * groups);
  for (let group = 0; group < offsets.length; group++) {
    const scale = (0.5 + random.share()) / 64;
    // Zero points lie near the middle of the grid, as those of trained weights do.
    const zero = (2 ** bits - 1) / 2 + (random.share() < 0.5 ? -0.5 : 0.5);
    for (let plane = 0; plane < planes; plane++)
      scales[group * planes + plane] = planes === 1 ? scale : scale * 2 ** plane * (0.8 + 0.4 * random.share());
    offsets[group] = -scale * zero;
  }
  using codes = Tensor.copyOf(random.codes(rows * cols, bits), [rows, cols]);
  using values = Tensor.copyOf(scales, [rows, groups, planes]);
  using bias = Tensor.copyOf(offsets, [rows, groups]);
  using halfValues = Tensor.zeros('f16', values.shape);
  using halfBias = Tensor.zeros('f16', bias.shape);
  const packed = Tensor.zeros('u8', [codesBytes(layout)]);
  const tiledValues = Tensor.zeros('f16', [scalesElements(layout)]);
  const tiledBias = Tensor.zeros('f16', [offsetsElements(layout)]);
  using program = new Program().packCodes(layout, codes, packed);
  program.convert(values, halfValues).packGroupValues(layout, planes, halfValues, tiledValues);
  program.convert(bias, halfBias).packGroupValues(layout, 1, halfBias, tiledBias);
  program.run();
  const subBranch = rank ? randomSubBranch(layout, rank, random) : null;
  return new QuantizedTensor(layout, packed, tiledValues, tiledBias, { subBranch });
}

/** A pair whose product is small against the weights. */
function randomSubBranch({ rows, cols }: QuantizedLayout, rank: number, random: Random): SubBranch {
  const [a, b] = [
    [rank, cols],
    [rows, rank],
  ].map(([m = 0, k = 0]) => {
    const values = random.normals(m * k).map((value) => value / 64);
    using wide = Tensor.copyOf(values, [m, k]);
    const half = Tensor.zeros('f16', wide.shape);
    using program = new Program().convert(wide, half);
    program.run();
    return half;
  }) as [Tensor, Tensor];
  return { a, b, aScales: null, bScales: null };
}

/** The same numbers in memory of their own. */
function copierOf(matrix: QuantizedTensor): () => QuantizedTensor {
  const copier = (tensor: Tensor) => {
    const data = tensor.read();
    return () => Tensor.copyOf(data, tensor.shape, tensor.dtype);
  };
  const { layout, subBranch } = matrix;
  const [codes, scales, offsets] = [copier(matrix.codes), copier(matrix.scales), copier(matrix.offsets as Tensor)];
  const [a, b] = subBranch ? [copier(subBranch.a), copier(subBranch.b)] : [];
  return () => {
    const pair = a && b ? { a: a(), b: b(), aScales: null, bScales: null } : null;
    return new QuantizedTensor(layout, codes(), scales(), offsets(), { subBranch: pair });
  };
}
