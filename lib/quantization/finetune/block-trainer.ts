import { createBlockTape, recordBlockBackward, recordBlockLoss } from '../../models/index.js';
import { Program, type Weight } from '../../ops/index.js';
import { Tensor } from '../../tensor/index.js';
import type { Call, FinetuneInput, SolvedLayer } from '../method.js';
import { energy, runOptions } from '../passes.js';
import type { AdamOptions } from '../passes-finetune.js';
import { copy, Parameter } from './parameter.js';
import { branchOf } from './sub-branch.js';
import { TrainedLayer, withRealOffsets } from './trained-layer.js';

/** A norm's weight, f32 for the operators, trained or not. */
interface Norm {
  name: string;
  live: Tensor;
  parameter: Parameter | null;
}

export interface TrainerOptions {
  /** Whether the norms' weights are trained as well. */
  norms: boolean;
  /** Whether learning rates are in units of the root mean square of a layer's scales or alphas, or of a norm. */
  relative: boolean;
}

type BlockInput = Omit<FinetuneInput<unknown>, 'options' | 'onEpoch'>;

/**
 * A block whose values and norms are trained by the mean squared error of its output, window by window (decoupleQ, arXiv
 * 2404.12759, section 3.3). Holds what `TrainedLayer` and `createBlockTape` tell: next to codes and values, 8 bytes for
 * every weight of the block and a window's activations.
 */
export class BlockTrainer {
  readonly #tape;
  readonly #loss = new Program();
  readonly #gradients = new Program();

  private constructor(
    private readonly input: BlockInput,
    private readonly layers: readonly TrainedLayer[],
    private readonly norms: readonly Norm[],
    weights: ReadonlyMap<string, Weight>,
    private readonly call: Call,
  ) {
    const { config, block, windows } = input;
    this.#tape = createBlockTape(config, windows.sequenceLength);
    const backward = { config, block, weights, tape: this.#tape };
    const gradients = new Map(input.layers.map(({ node }, index) => [node.name, layers[index]!.gradient]));
    for (const { name, parameter } of norms) if (parameter) gradients.set(name, parameter.gradient);
    recordBlockLoss(this.#loss, backward);
    recordBlockLoss(this.#gradients, backward);
    recordBlockBackward(this.#gradients, backward, gradients);
  }

  static async create(
    input: BlockInput,
    { norms: trainNorms, relative }: TrainerOptions,
    call: Call,
  ): Promise<BlockTrainer> {
    const weights = new Map(input.weights);
    const layers: TrainedLayer[] = [];
    const norms: Norm[] = [];
    try {
      for (const layer of input.layers) layers.push(await trainedLayer(layer, call));
      for (const name of [input.block.attentionNorm, input.block.feedForwardNorm])
        norms.push(await normOf(input, name, trainNorms, call));
      for (const [index, { node }] of input.layers.entries()) weights.set(node.name, layers[index]!.weight);
      for (const { name, live } of norms) weights.set(name, live);
      const trainer = new BlockTrainer(input, layers, norms, weights, call);
      for (const parameter of trainer.#parameters()) await parameter.start(call);
      if (relative) await trainer.#setUnits();
      return trainer;
    } catch (error) {
      for (const one of [
        ...layers,
        ...norms.flatMap(({ parameter, live }) => [live, ...(parameter ? [parameter] : [])]),
      ])
        one.dispose();
      throw error;
    }
  }

  async #setUnits(): Promise<void> {
    const trained = this.norms.flatMap(({ parameter }) => (parameter ? [[parameter]] : []));
    for (const together of [...this.layers.map(({ parameters }) => parameters), ...trained]) {
      const { trained: numbers } = together[0]!;
      const unit = Math.sqrt((await energy(numbers, {}, this.call)) / numbers.elements);
      for (const parameter of together) parameter.unit = unit;
    }
  }

  /** The mean squared error over all windows with every number as it would be stored. */
  async measure(): Promise<number> {
    for (const parameter of this.#parameters()) await parameter.round(this.call);
    await this.#materialise('rounded');
    const { count, sequenceLength } = this.input.windows;
    let sum = 0;
    for (let window = 0; window < count; window++) {
      await this.#load(window);
      await this.#loss.runAsync(runOptions(this.call));
      for (const loss of this.#tape.loss.read()) sum += loss;
    }
    return sum / (count * sequenceLength);
  }

  /** Makes what `measure` measured last the block's values and norms. */
  async keep(): Promise<void> {
    for (const parameter of this.#parameters()) await parameter.keep(this.call);
  }

  /** One step of Adam down the error of one window. */
  async step(window: number, options: AdamOptions): Promise<void> {
    await this.#materialise('trained');
    await this.#load(window);
    await this.#gradients.runAsync(runOptions(this.call));
    for (const layer of this.layers) await layer.backward(this.call);
    for (const parameter of this.#parameters()) await parameter.step(options, this.call);
  }

  dispose(): void {
    for (const one of [this.#loss, this.#gradients, this.#tape, ...this.layers, ...this.#parameters()]) one.dispose();
    for (const { live } of this.norms) live.dispose();
  }

  #parameters(): Parameter[] {
    const norms = this.norms.flatMap(({ parameter }) => (parameter ? [parameter] : []));
    return [...this.layers.flatMap(({ parameters }) => parameters), ...norms];
  }

  async #load(window: number): Promise<void> {
    await this.input.windows.input(window, this.#tape.input);
    await this.input.windows.target(window, this.#tape.target);
  }

  async #materialise(form: 'trained' | 'rounded'): Promise<void> {
    for (const layer of this.layers) await layer.materialise(form, this.call);
    for (const { live, parameter } of this.norms) if (parameter) await copy([[parameter[form], live]], this.call);
  }
}

async function trainedLayer(layer: SolvedLayer, { threads, signal }: Call): Promise<TrainedLayer> {
  const call = { threads, signal, where: layer.node.name };
  await withRealOffsets(layer, call);
  return new TrainedLayer(layer, await branchOf(layer, call));
}

async function normOf(input: BlockInput, name: string, train: boolean, call: Call): Promise<Norm> {
  const stored = input.weights.get(name) as Tensor;
  const live = Tensor.zeros('f32', stored.shape);
  await copy([[stored, live]], { ...call, where: name });
  return { name, live, parameter: train ? new Parameter(stored, input.dtype(name)) : null };
}
