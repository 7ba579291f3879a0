import { lutraError } from '../errors.js';
import { addon, fromNative, guarded, modeIds, type NativePrepared } from '../native/index.js';
import { type QuantizedTensor, Tensor } from '../tensor/index.js';
import { checkPacked, checkTensor, resultShape, wrongType } from './lut-gemm.js';
import { checkOptions, multiplyOptions, prepareOptions, threadOptions } from './options.js';
import { checkBatchInvariant, checkMode, checkThreads, type ProductOptions } from './program.js';

export interface PrepareOptions extends ProductOptions {
  /** Lanes to use at most; the whole pool by default. Never changes the result's bits. */
  threads?: number | undefined;
}

export interface MultiplyOptions {
  /** f32 [tokens, outFeatures] that receives the result; a new tensor by default. */
  out?: Tensor | undefined;
  /** Lanes to use at most; the whole pool by default. Never changes the result's bits. */
  threads?: number | undefined;
}

/**
 * Lays out activations once for several packed matrices that read the same input, as q, k and v of a block do.
 *
 * @param x f32 [tokens, inFeatures] or [inFeatures]. What is prepared is its content now: x may change or be disposed.
 * @param weights one or more matrices of equal inFeatures, bits, group size and kind. They stay usable by what is prepared
 *   even when they are disposed.
 * @throws `LUTRA_E_SHAPE`, `LUTRA_E_DTYPE`, `LUTRA_E_OPTION`, `LUTRA_E_DISPOSED`, `LUTRA_E_MEMORY`
 */
export function prepareActivations(
  x: Tensor,
  weights: readonly QuantizedTensor[],
  options: PrepareOptions = {},
): PreparedActivations {
  return new PreparedActivations(x, weights, options);
}

/** What `prepareActivations` made. Owns native memory, about 8 to 16 times x's for few tokens: dispose it. */
export class PreparedActivations {
  readonly #weights: readonly QuantizedTensor[];
  #shape: readonly number[];
  #native: NativePrepared | null;

  /** Made by `prepareActivations`. */
  constructor(x: Tensor, weights: readonly QuantizedTensor[], options: PrepareOptions) {
    const where = 'prepareActivations';
    checkOptions(options, prepareOptions, where);
    const { mode = 'accurate', batchInvariant = false, threads = 0 } = options;
    const id = modeIds[checkMode(mode, `${where}.mode`)];
    checkBatchInvariant(batchInvariant, `${where}.batchInvariant`);
    checkThreads(threads, `${where}.threads`);
    checkTensor(x, `${where}.x`);
    if (!Array.isArray(weights) || weights.length === 0)
      throw lutraError('LUTRA_E_OPTION', {
        message: 'an array of packed matrices is needed',
        where: `${where}.weights`,
      });
    for (const [i, weight] of weights.entries()) checkPacked(weight, `${where}.weights[${i}]`);
    this.#weights = [...weights];
    this.#shape = x.shape;
    const packed = weights.map(({ native }) => native);
    try {
      this.#native = new (addon().Prepared)(packed, x.native, id, batchInvariant, threads);
    } catch (error) {
      throw wrongType(where, x) ?? fromNative(error, where);
    }
  }

  /**
   * Lays out another x, or the same one changed, in the same memory where it suffices. Should this throw, nothing is
   * prepared until a later call succeeds.
   */
  update(x: Tensor, options: { threads?: number | undefined } = {}): void {
    checkOptions(options, threadOptions, 'PreparedActivations.update');
    const { threads = 0 } = options;
    checkThreads(threads, 'PreparedActivations.update.threads');
    checkTensor(x, 'PreparedActivations.update.x');
    guarded(() => this.#alive().update(x.native, threads), 'PreparedActivations.update');
    this.#shape = x.shape;
  }

  /**
   * y = x · Wᵀ for one of the matrices: bit for bit what `lutGemm` gives for the same x and options.
   *
   * @throws `LUTRA_E_OPTION` for a matrix that was not among those prepared for; `LUTRA_E_SHAPE`, `LUTRA_E_DISPOSED`
   */
  multiply(q: QuantizedTensor, options: MultiplyOptions = {}): Tensor {
    checkOptions(options, multiplyOptions, 'PreparedActivations.multiply');
    const { out, threads = 0 } = options;
    if (out !== undefined) checkTensor(out, 'PreparedActivations.multiply.out');
    checkThreads(threads, 'PreparedActivations.multiply.threads');
    const index = this.#weights.indexOf(q);
    if (index < 0)
      throw lutraError('LUTRA_E_OPTION', {
        message: 'x was not prepared for this matrix',
        where: 'PreparedActivations.multiply',
        hint: 'Name every matrix in prepareActivations.',
      });
    const native = this.#alive();
    const y = out ?? Tensor.zeros('f32', resultShape(this.#shape, q));
    try {
      native.multiply(index, y.native, threads);
      return y;
    } catch (error) {
      if (!out) y.dispose();
      throw fromNative(error, 'PreparedActivations.multiply');
    }
  }

  #alive(): NativePrepared {
    if (this.#native) return this.#native;
    throw lutraError('LUTRA_E_DISPOSED', {
      message: 'the prepared activations were disposed',
      where: 'PreparedActivations',
    });
  }

  /** Gives the memory back. Idempotent; any later use throws `LUTRA_E_DISPOSED`. */
  dispose(): void {
    this.#native?.dispose();
    this.#native = null;
  }

  [Symbol.dispose](): void {
    this.dispose();
  }
}
