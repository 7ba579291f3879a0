import { Program } from '../../ops/index.js';
import { type Dtype, Tensor } from '../../tensor/index.js';
import type { Call } from '../method.js';
import { runOptions } from '../passes.js';
import { type AdamOptions, adamStep } from '../passes-finetune.js';

/** Numbers that are trained in f32 and stored in another type: one value of every group of a matrix, or a norm. */
export class Parameter {
  readonly trained: Tensor;
  /** The trained numbers as they would be stored, in f32. */
  readonly rounded: Tensor;
  /** Where the derivatives of the loss go before `step`. */
  readonly gradient: Tensor;
  /** What the learning rate is multiplied with. */
  unit = 1;
  readonly #narrow: Tensor;
  readonly #moments: Tensor;
  #steps = 0;

  /** @param best where `keep` puts the rounded numbers; what is there now, `start` takes as the first. */
  constructor(
    private readonly best: Tensor,
    dtype: Dtype,
  ) {
    this.trained = Tensor.zeros('f32', best.shape);
    this.rounded = Tensor.zeros('f32', best.shape);
    this.gradient = Tensor.zeros('f32', best.shape);
    this.#narrow = Tensor.zeros(dtype, best.shape);
    this.#moments = Tensor.zeros('f32', [2, best.elements]);
  }

  async start(call: Call): Promise<void> {
    await copy([[this.best, this.trained]], call);
  }

  async round(call: Call): Promise<void> {
    await copy(
      [
        [this.trained, this.#narrow],
        [this.#narrow, this.rounded],
      ],
      call,
    );
  }

  async keep(call: Call): Promise<void> {
    await copy([[this.rounded, this.best]], call);
  }

  async step(options: AdamOptions, call: Call): Promise<void> {
    this.#steps += 1;
    const operands = { parameter: this.trained, gradient: this.gradient, moments: this.#moments };
    await adamStep(this.#steps, operands, { ...options, learningRate: this.unit * options.learningRate }, call);
  }

  dispose(): void {
    for (const tensor of [this.trained, this.rounded, this.gradient, this.#narrow, this.#moments]) tensor.dispose();
  }
}

/** Copies tensors one after the other, rounding to the type of what they are copied to. */
export async function copy(pairs: readonly (readonly [Tensor, Tensor])[], call: Call): Promise<void> {
  using program = new Program();
  for (const [from, to] of pairs) program.convert(from, to);
  await program.runAsync(runOptions(call));
}
