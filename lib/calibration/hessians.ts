import { lutraError } from '../errors.js';
import type { Tap } from '../models/index.js';
import { Tensor, triangleElements } from '../tensor/index.js';

interface TappedInput {
  /** f64, a packed triangle of inFeatures rows. */
  gram: Tensor;
  /** Tokens that one run of the recorded program adds. */
  rowsARun: number;
  tokens: number;
}

/**
 * The sums of xᵀx of the inputs of a block's linear layers. `tap` adds the accumulation to a program while a block is
 * being recorded; `ran` counts one run of that program.
 */
export class HessianCollector {
  readonly #inputs = new Map<string, TappedInput>();

  /** @param only the one input that is wanted; null for all. */
  constructor(private readonly only: string | null = null) {}

  /** To be handed to `recordBlock`. */
  readonly tap: Tap = (input, x, program) => {
    if (this.only !== null && input !== this.only) return;
    const [rows = 0, width = 0] = x.shape;
    const tapped = this.#inputs.get(input) ?? {
      gram: Tensor.zeros('f64', [triangleElements(width)]),
      rowsARun: 0,
      tokens: 0,
    };
    this.#inputs.set(input, tapped);
    tapped.rowsARun += rows;
    program.accumulateGram(x, tapped.gram);
  };

  /** Says that the recorded program has run once. */
  ran(): void {
    for (const tapped of this.#inputs.values()) tapped.tokens += tapped.rowsARun;
  }

  /** Begins again, with the same tensors. */
  reset(): void {
    for (const tapped of this.#inputs.values()) {
      tapped.gram.fill(0);
      tapped.tokens = 0;
    }
  }

  /**
   * The Hessian of one input and the tokens in it; the tensor passes to the caller, who disposes it.
   *
   * @throws `LUTRA_E_INTERNAL` where the input saw no token: a layer must not be quantized against nothing.
   */
  take(input: string): { hessian: Tensor; tokens: number } {
    const tapped = this.#inputs.get(input);
    if (!tapped?.tokens)
      throw lutraError('LUTRA_E_INTERNAL', { message: 'calibration saw no token of this input', where: input });
    this.#inputs.delete(input);
    return { hessian: tapped.gram, tokens: tapped.tokens };
  }

  dispose(): void {
    for (const { gram } of this.#inputs.values()) gram.dispose();
    this.#inputs.clear();
  }
}
