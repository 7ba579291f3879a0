import {
  BlockScratch,
  createBlockCache,
  type LinearNode,
  recordPart,
  ropeTable,
  type ScalingGroup,
} from '../../models/index.js';
import { Program, type Weight } from '../../ops/index.js';
import { Tensor } from '../../tensor/index.js';
import type { BlockSample, BlockTransformInput, Call } from '../method.js';
import { energy, runOptions } from '../passes.js';
import { chooseScaleDtype } from '../scale-dtype.js';
import { meanMagnitudes, roundScaled, scaleMatrix, squaredDistance } from './passes.js';
import { foldableScales } from './scaling.js';

/** A scale below this is taken for it: a channel that the sample never saw. */
const smallestScale = 1e-4;

type Input = BlockTransformInput<{ steps: number }>;

export interface FoundScales {
  /** f64 [inFeatures]; ones where nothing was better. */
  scales: Float64Array;
  alpha: number;
  /** ‖ΔY‖² / ‖Y‖² of the group's part of the block, its layers rounded to nearest, with these scales and without. */
  error: number;
  plainError: number;
}

/** Tries every ratio on one scaling group; the first of the best ones wins, and alpha = 0 is the first. */
export async function searchScales(
  group: ScalingGroup,
  input: Input,
  sample: BlockSample,
  call: Call,
): Promise<FoundScales> {
  const x = sample.inputs.get(group.linears[0]!.input)!;
  const mean = await meanMagnitudes(x, call);
  using trial = new GroupTrial(group, input, x, sample.sequenceLength, call);
  await trial.begin();
  const plain = new Float64Array(mean.length).fill(1);
  const plainError = await trial.error(plain);
  let best: FoundScales = { scales: plain, alpha: 0, error: plainError, plainError };
  for (let step = 1; step < input.options.steps; step++) {
    const alpha = step / input.options.steps;
    const scales = await foldableScales(group, ratioScales(mean, alpha), input, call);
    if (!(await trial.holds(scales))) continue;
    const error = await trial.error(scales);
    if (error < best.error) best = { scales, alpha, error, plainError };
  }
  return best;
}

/** mean^alpha, normed so that the largest and the smallest scale are each other's inverse. */
function ratioScales(mean: Float64Array, alpha: number): Float64Array {
  const scales = mean.map((magnitude) => Math.max(smallestScale, magnitude ** alpha));
  const [least, most] = scales.reduce(([low, high], s) => [Math.min(low, s), Math.max(high, s)], [Infinity, 0]);
  const middle = Math.sqrt(least! * most!);
  return scales.map((scale) => scale / middle);
}

/** One group's part of the block, run with rounded layers instead of the original ones. */
class GroupTrial {
  readonly #rounded = new Map<LinearNode, Tensor>();
  readonly #owned: { dispose(): void }[] = [];
  readonly #program: Program;
  readonly #original: Tensor;
  readonly #result: Tensor;
  #energy = 0;

  constructor(
    private readonly group: ScalingGroup,
    private readonly input: Input,
    x: Tensor,
    sequenceLength: number,
    private readonly call: Call,
  ) {
    const { config, block } = input;
    const [tokens = 0] = x.shape;
    const scratch = this.#own(new BlockScratch(config, tokens));
    const cache = createBlockCache(config, sequenceLength);
    const step = {
      x,
      scratch,
      cache: { keys: this.#own(cache.keys), values: this.#own(cache.values) },
      cosSin: this.#own(ropeTable(config, sequenceLength)),
      products: { mode: 'exact' },
      sequenceLength,
    } as const;
    const weights = new Map<string, Weight>(input.weights);
    for (const node of group.linears) {
      const w = this.#own(Tensor.zeros('f32', [node.outFeatures, node.inFeatures]));
      this.#rounded.set(node, w);
      weights.set(node.name, w);
    }
    this.#original = this.#own(Tensor.zeros('f32', [tokens, config.hiddenSize]));
    this.#result = this.#own(Tensor.zeros('f32', [tokens, config.hiddenSize]));
    this.#program = this.#own(new Program());
    recordPart(this.#program, config, block, group.part, weights, { ...step, y: this.#result });
  }

  /** Runs the part as it is: what the results are compared with. */
  async begin(): Promise<void> {
    const { weights } = this.input;
    for (const [{ name }, w] of this.#rounded) await scaleMatrix(weights.get(name) as Tensor, {}, w, this.#where(name));
    await this.#program.runAsync(runOptions(this.call));
    await scaleMatrix(this.#result, {}, this.#original, this.call);
    this.#energy = await energy(this.#original, {}, this.call);
  }

  /** Relative squared error of the part's output with layers rounded under these scales. */
  async error(scales: Float64Array): Promise<number> {
    const { weights, grid, storage } = this.input;
    for (const [{ name }, rounded] of this.#rounded) {
      const w = weights.get(name) as Tensor;
      const { scaleDtype } = await chooseScaleDtype(w, grid(name), storage, this.#where(name));
      await roundScaled(w, scales, rounded, { grid: grid(name), scaleDtype }, this.#where(name));
    }
    await this.#program.runAsync(runOptions(this.call));
    const distance = await squaredDistance(this.#result, this.#original, this.call);
    return distance === 0 ? 0 : distance / this.#energy;
  }

  /** Whether all layers that these scales change keep the type in which their own scales are stored. */
  async holds(scales: Float64Array): Promise<boolean> {
    const { producer } = this.group;
    for (const [{ name }, scaled] of this.#rounded)
      if (!(await this.#keepsType(name, scaled, { columns: scales }))) return false;
    if ('norm' in producer) return true;
    const { name, outFeatures, inFeatures } = producer.linear;
    using scaled = Tensor.zeros('f32', [outFeatures, inFeatures]);
    return await this.#keepsType(name, scaled, { rows: scales.map((scale) => 1 / scale) });
  }

  async #keepsType(name: string, scaled: Tensor, by: Parameters<typeof scaleMatrix>[1]): Promise<boolean> {
    const { weights, grid, storage } = this.input;
    const w = weights.get(name) as Tensor;
    await scaleMatrix(w, by, scaled, this.#where(name));
    const choose = async (x: Tensor) => (await chooseScaleDtype(x, grid(name), storage, this.#where(name))).scaleDtype;
    return (await choose(w)) === (await choose(scaled));
  }

  #where(where: string): Call {
    return { ...this.call, where };
  }

  #own<T extends { dispose(): void }>(owned: T): T {
    this.#owned.push(owned);
    return owned;
  }

  [Symbol.dispose](): void {
    for (const owned of this.#owned) owned.dispose();
  }
}
