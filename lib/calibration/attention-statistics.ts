import { type AttentionTap, type LlamaConfig, ropeFrequencies } from '../models/index.js';
import { Program } from '../ops/index.js';
import { Tensor, triangleElements } from '../tensor/index.js';
import { rotaryMean } from './rotary-mean.js';

/**
 * The row Hessians of a block's query and key projections (BoA, arXiv 2406.13474): errors in the rows of a query head cost
 * what the keys that it meets make of them, and the other way round. `tap` adds the sums over tokens to a program while a
 * block is being recorded.
 */
export class RowHessianCollector {
  /** f64 [heads, headDim, headDim] and [kvHeads, headDim, headDim]: sums of qᵀq and kᵀk, both rotated. */
  readonly #queries: Tensor;
  readonly #keys: Tensor;

  constructor(private readonly config: LlamaConfig) {
    const { heads, kvHeads, headDim } = config;
    this.#queries = Tensor.zeros('f64', [heads, headDim, headDim]);
    this.#keys = Tensor.zeros('f64', [kvHeads, headDim, headDim]);
  }

  /** To be handed to `recordBlock`. */
  readonly tap: AttentionTap = ({ q, keys }, program) => {
    program.accumulateHeadGrams(q, this.#queries).accumulateHeadGrams(keys, this.#keys);
  };

  /**
   * f64 [heads, headDim, headDim] for the query projection, [kvHeads, headDim, headDim] for the key projection; the
   * caller's to dispose.
   *
   * @param positions of a window: each counts alike.
   */
  take(positions: number): { query: Tensor; key: Tensor } {
    const { heads, kvHeads, headDim } = this.config;
    const repeats = heads / kvHeads;
    const keys = this.#before(this.#keys, positions);
    const queries = this.#before(groupSums(this.#queries, repeats), positions);
    const size = headDim * headDim;
    const query = new Float64Array(heads * size);
    for (let head = 0; head < heads; head++) {
      const group = Math.floor(head / repeats);
      query.set(keys.subarray(group * size, (group + 1) * size), head * size);
    }
    const shape = [headDim, headDim];
    return { query: Tensor.copyOf(query, [heads, ...shape]), key: Tensor.copyOf(queries, [kvHeads, ...shape]) };
  }

  /** Grams as they are before the rotation, on average. */
  #before(rotated: Tensor | Float64Array, positions: number): Float64Array {
    const grams = rotated instanceof Tensor ? (rotated.read() as Float64Array) : rotated;
    const frequencies = ropeFrequencies(this.config);
    const size = this.config.headDim ** 2;
    const means = new Float64Array(grams.length);
    for (let at = 0; at < grams.length; at += size)
      means.set(rotaryMean(grams.subarray(at, at + size), frequencies, positions), at);
    return means;
  }

  /** Begins again, with the same tensors. */
  reset(): void {
    this.#queries.fill(0);
    this.#keys.fill(0);
  }

  dispose(): void {
    this.#queries.dispose();
    this.#keys.dispose();
  }
}

/**
 * Hessians of some heads of a block's value projection: what each key-value head's causal attention makes of the inputs,
 * summed over the query heads that share it (BoA, arXiv 2406.13474).
 */
export class HeadHessianCollector {
  /** f64 [count, hiddenSize · (hiddenSize + 1) / 2]: packed triangles. */
  readonly hessians: Tensor;

  /** Of the key-value heads `first` to `first + count`. */
  constructor(
    private readonly config: LlamaConfig,
    private readonly first: number,
    count: number,
  ) {
    this.hessians = Tensor.zeros('f64', [count, triangleElements(config.hiddenSize)]);
  }

  /** To be handed to `recordBlock`. */
  readonly tap: AttentionTap = (inputs, program) => {
    const { heads, kvHeads, headDim, slidingWindow: window } = this.config;
    program.accumulateAttendedGrams(inputs, { heads, kvHeads, headDim, window }, this.first, this.hessians);
  };

  dispose(): void {
    this.hessians.dispose();
  }
}

/**
 * Row Hessians of the value projection: what the output projection makes of errors in a head's rows, f64 [kvHeads, headDim,
 * headDim], the caller's to dispose.
 *
 * @param output f32 [hiddenSize, heads · headDim], the output projection's weights.
 */
export async function valueRowHessians(
  output: Tensor,
  { heads, kvHeads, headDim }: LlamaConfig,
  call: { threads: number; signal: AbortSignal | undefined },
): Promise<Tensor> {
  using grams = Tensor.zeros('f64', [heads, headDim, headDim]);
  using program = new Program().accumulateHeadGrams(output, grams);
  await program.runAsync(call);
  return Tensor.copyOf(groupSums(grams, heads / kvHeads), [kvHeads, headDim, headDim]);
}

/** Sums of the matrices of `repeats` consecutive heads. */
function groupSums(grams: Tensor, repeats: number): Float64Array {
  const [heads = 0, rows = 0, columns = 0] = grams.shape;
  const size = rows * columns;
  const all = grams.read() as Float64Array;
  const sums = new Float64Array((heads / repeats) * size);
  for (let i = 0; i < all.length; i++) sums[Math.floor(i / size / repeats) * size + (i % size)]! += all[i]!;
  return sums;
}
