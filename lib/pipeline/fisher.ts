import {
  type BlockGraph,
  createBlockTape,
  type LinearNode,
  recordBlockBackward,
  recordBlockForward,
  recordEmbedding,
  recordHeadBackward,
} from '../models/index.js';
import { Program } from '../ops/index.js';
import { asFloat32, refuseNonFinite, type TensorSource } from '../quantization/index.js';
import { Tensor } from '../tensor/index.js';
import { ActivationStore } from './activation-store.js';
import { loadBlock } from './block-work.js';
import type { CalibrationInputs } from './calibration-inputs.js';
import { closingOnFailure } from './closing.js';
import type { JobContext } from './layer-writer.js';

/** Tokens that the derivatives are taken on; windows are not cut. */
const mostTokens = 2 ** 14;
/** Rows of logits at a time. */
export const logitRows = 256;

/** Windows that the derivatives are taken on. */
export const fisherWindows = (windows: number, sequenceLength: number): number =>
  Math.min(windows, Math.max(1, Math.floor(mostTokens / sequenceLength)));

const overflow = {
  what: 'the activations',
  hint: 'The model overflows on this text. The pass of `allocation` leaves no window out: `calibration.maxBadWindows` does not count there.',
};

/** A block on the way back. */
export interface BlockFisher {
  block: BlockGraph;
  /** The block's tensors in f32. */
  weights: ReadonlyMap<string, Tensor>;
  /** Of its linear layers, by name, f32 [outFeatures, inFeatures]: summed over the pass's tokens. */
  fisher: ReadonlyMap<string, Tensor>;
}

/**
 * How much of the model's prediction hangs on every weight: the diagonal of the empirical Fisher matrix (Kunstner and others,
 * arXiv 1905.12558), here the squared derivatives of the loss of the text's own next tokens, summed over windows. A small
 * change ΔW brings a divergence of ½ Σ F ΔW², in nats and over all tokens. The model goes through up to 16,384 tokens of the
 * calibration forwards and then backwards, a block in memory at a time, beside its Fisher and one gradient;
 * what enters the blocks lies in a scratch file.
 */
export class FisherPass {
  readonly #tape;
  readonly #windows: readonly Int32Array[];

  private constructor(
    private readonly source: TensorSource,
    private readonly calibration: CalibrationInputs,
    private readonly store: ActivationStore,
    private readonly context: JobContext,
  ) {
    const { windows, sequenceLength } = calibration;
    const count = fisherWindows(windows.length, sequenceLength);
    this.#windows = Array.from({ length: count }, (_, i) => windows[Math.floor((i * windows.length) / count)]!);
    this.#tape = createBlockTape(source.graph.config, sequenceLength);
  }

  /** @param path of the scratch file */
  static async create(source: TensorSource, calibration: CalibrationInputs, path: string, context: JobContext) {
    const store = await ActivationStore.create(path, context.signal);
    const make = () => new FisherPass(source, calibration, store, context);
    return await closingOnFailure(make, () => store.dispose());
  }

  /** The blocks from the last to the first. What is yielded is valid until the next is asked for. */
  async *blocks(): AsyncGenerator<BlockFisher> {
    const { blocks } = this.source.graph;
    await this.#embed();
    for (const block of blocks) await this.#forward(block);
    await this.#head();
    for (const block of [...blocks].reverse()) {
      const weights = await this.#load(block);
      const fisher = new Map<string, Tensor>();
      try {
        for (const { name, outFeatures, inFeatures } of block.linears)
          fisher.set(name, Tensor.zeros('f32', [outFeatures, inFeatures]));
        await this.#backward(block, weights, fisher);
        yield { block, weights, fisher };
      } finally {
        for (const tensor of [...weights.values(), ...fisher.values()]) tensor.dispose();
      }
    }
  }

  async #embed(): Promise<void> {
    const { graph } = this.source;
    using table = await this.source.load(graph.embedding, this.context);
    using ids = Tensor.zeros('i32', [this.calibration.sequenceLength]);
    using program = new Program();
    recordEmbedding(program, table, ids, this.#tape.input);
    for (const [window, tokens] of this.#windows.entries()) {
      ids.write(tokens);
      await program.runAsync(this.context);
      await this.store.write(this.#place(0, window), this.#tape.input);
    }
  }

  async #forward(block: BlockGraph): Promise<void> {
    const { config } = this.source.graph;
    const { input, hidden } = this.#tape;
    const weights = await this.#load(block);
    try {
      using program = new Program();
      recordBlockForward(program, { config, block, weights, tape: this.#tape });
      for (const window of this.#windows.keys()) {
        await this.store.read(this.#place(block.index, window), input);
        await program.runAsync({ ...this.context, position: 0 });
        const call = { ...this.context, where: `${block.prefix}, window ${window} of the allocation` };
        await refuseNonFinite(hidden, call, overflow);
        await this.store.write(this.#place(block.index + 1, window), hidden);
        this.#report('forward', block, window);
      }
    } finally {
      for (const tensor of weights.values()) tensor.dispose();
    }
  }

  /** Puts the derivative by the last block's output where that was. The loss is summed over tokens, of which the last has no target. */
  async #head(): Promise<void> {
    const { graph } = this.source;
    const { sequenceLength } = this.calibration;
    const { hidden, normed, dhidden } = this.#tape;
    using norm = await this.#float32(graph.finalNorm);
    using lmHead = await this.#float32(graph.lmHead);
    using target = Tensor.zeros('i32', [sequenceLength]);
    using logits = Tensor.zeros('f32', [Math.min(logitRows, sequenceLength), graph.config.vocabularySize]);
    using program = new Program();
    recordHeadBackward(program, graph.config, { norm, lmHead }, { hidden, target, logits, normed, dhidden });
    for (const [window, tokens] of this.#windows.entries()) {
      target.write(Int32Array.from(tokens, (_, at) => tokens[at + 1] ?? -1));
      await this.store.read(this.#place(graph.blocks.length, window), hidden);
      await program.runAsync(this.context);
      await this.store.write(this.#place(graph.blocks.length, window), dhidden);
    }
  }

  async #backward(block: BlockGraph, weights: ReadonlyMap<string, Tensor>, fisher: ReadonlyMap<string, Tensor>) {
    const { config } = this.source.graph;
    const { input, dhidden } = this.#tape;
    // All gradients share memory: each is squared before the next is computed.
    using memory = Tensor.zeros('f32', [Math.max(...block.linears.map(elementsOf))]);
    const gradients = new Map(block.linears.map((node) => [node.name, viewFor(node, memory)]));
    try {
      using program = new Program();
      const backward = { config, block, weights, tape: this.#tape };
      recordBlockForward(program, backward);
      recordBlockBackward(program, backward, gradients, {
        toInput: true,
        onGradient: (name) => program.accumulateSquares(gradients.get(name)!, fisher.get(name)!),
      });
      for (const window of this.#windows.keys()) {
        await this.store.read(this.#place(block.index, window), input);
        await this.store.read(this.#place(block.index + 1, window), dhidden);
        await program.runAsync({ ...this.context, position: 0 });
        await this.store.write(this.#place(block.index, window), dhidden);
        this.#report('backward', block, window);
      }
    } finally {
      for (const view of gradients.values()) view.dispose();
    }
  }

  async #load(block: BlockGraph): Promise<Map<string, Tensor>> {
    const weights = (await loadBlock(this.source, block, this.context)) as Map<string, Tensor>;
    try {
      for (const [name, stored] of weights) {
        const converted = await asFloat32(stored, { ...this.context, where: name });
        if (converted === stored) continue;
        weights.set(name, converted);
        stored.dispose();
      }
      return weights;
    } catch (error) {
      for (const tensor of weights.values()) tensor.dispose();
      throw error;
    }
  }

  async #float32(name: string): Promise<Tensor> {
    const stored = await this.source.load(name, this.context);
    const convert = () => asFloat32(stored, { ...this.context, where: name });
    const converted = await closingOnFailure(convert, () => stored.dispose());
    if (converted !== stored) stored.dispose();
    return converted;
  }

  /** Where a window's input of a block lies; behind the last block, its output, and on the way back the derivatives by these. */
  #place = (block: number, window: number): number => block * this.#windows.length + window;

  #report(pass: 'forward' | 'backward', block: BlockGraph, window: number): void {
    const [blocks, windows] = [this.source.graph.blocks.length, this.#windows.length];
    this.context.report({ phase: 'allocate', pass, block: block.index + 1, blocks, window: window + 1, windows });
  }

  /** Tokens of all windows. */
  get tokens(): number {
    return this.#windows.length * this.calibration.sequenceLength;
  }

  async dispose(): Promise<void> {
    this.#tape.dispose();
    await this.store.dispose();
  }
}

const elementsOf = ({ outFeatures, inFeatures }: LinearNode): number => outFeatures * inFeatures;

function viewFor(node: LinearNode, memory: Tensor): Tensor {
  using part = memory.rows(0, elementsOf(node));
  return part.reshape([node.outFeatures, node.inFeatures]);
}
