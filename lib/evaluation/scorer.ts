import { Program } from '../ops/index.js';
import { Tensor } from '../tensor/index.js';

/** What is known of every row of logits: f64 nats and arg-max ids. */
export interface Scores {
  readonly losses: Float64Array;
  /** KL(reference || model), or null without reference. */
  readonly divergences: Float64Array | null;
  /** Whether both models hold the same token the likeliest, or null without reference. */
  readonly agreements: boolean[] | null;
}

/** Compares rows of logits with targets and with a reference's logits, in native memory. */
export class Scorer {
  readonly #targets: Tensor;
  readonly #losses: Tensor;
  readonly #top: Tensor;
  readonly #referenceLosses: Tensor;
  readonly #referenceTop: Tensor;
  readonly #divergences: Tensor;

  /** @param rows rows scored together at most. */
  constructor(rows: number) {
    this.#targets = Tensor.zeros('i32', [rows]);
    this.#losses = Tensor.zeros('f64', [rows]);
    this.#top = Tensor.zeros('i32', [rows]);
    this.#referenceLosses = Tensor.zeros('f64', [rows]);
    this.#referenceTop = Tensor.zeros('i32', [rows]);
    this.#divergences = Tensor.zeros('f64', [rows]);
  }

  /** @param logits f32 [n, vocabulary], like the reference's. @param targets n ids, negative where none is counted. */
  async score(
    logits: Tensor,
    reference: Tensor | null,
    targets: readonly number[],
    options: { threads: number; signal?: AbortSignal | undefined },
  ): Promise<Scores> {
    const n = targets.length;
    this.#targets.write(Int32Array.from(targets));
    using program = this.#record(logits, reference, n);
    await program.runAsync(options);
    const losses = this.#losses.read(0, n) as Float64Array;
    if (!reference) return { losses, divergences: null, agreements: null };
    const top = this.#top.read(0, n);
    const referenceTop = this.#referenceTop.read(0, n);
    const agreements = Array.from(top, (id, row) => id === referenceTop[row]);
    return { losses, divergences: this.#divergences.read(0, n) as Float64Array, agreements };
  }

  #record(logits: Tensor, reference: Tensor | null, n: number): Program {
    const views: Tensor[] = [];
    const first = (tensor: Tensor) => {
      const view = tensor.rows(0, n);
      views.push(view);
      return view;
    };
    const program = new Program();
    program.crossEntropy(logits, first(this.#targets), first(this.#losses), first(this.#top));
    if (reference) {
      program.crossEntropy(reference, first(this.#targets), first(this.#referenceLosses), first(this.#referenceTop));
      program.klDivergence(reference, logits, first(this.#divergences));
    }
    for (const view of views) view.dispose();
    return program;
  }

  [Symbol.dispose](): void {
    this.#targets.dispose();
    this.#losses.dispose();
    this.#top.dispose();
    this.#referenceLosses.dispose();
    this.#referenceTop.dispose();
    this.#divergences.dispose();
  }
}
