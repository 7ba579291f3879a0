import { HessianCollector } from '../calibration/index.js';
import type { BlockGraph, LlamaConfig } from '../models/index.js';
import type { Weight } from '../ops/index.js';
import { proxyLoss } from '../quantization/index.js';
import type { Tensor } from '../tensor/index.js';
import { ActivationGenerations, type Checksums, type KeptActivations } from './activation-generations.js';
import { BlockRunner } from './block-runner.js';
import type { CalibrationInputs } from './calibration-inputs.js';
import { closingOnFailure } from './closing.js';
import type { JobContext, LayerWriter } from './layer-writer.js';
import { WindowScreen } from './window-screen.js';

type Weights = ReadonlyMap<string, Weight>;

/**
 * Measures how much of a method's gain is fitted to its calibration: the proxy loss of every layer on the calibration windows,
 * and on windows that no method sees. They go through the model as the others do, fed by the quantized blocks before. Both
 * losses are of the weights as they are stored in the end, whatever the method makes small.
 */
export class HeldOutWindows {
  private constructor(
    private readonly runner: BlockRunner,
    private readonly store: ActivationGenerations,
    private readonly windows: readonly Int32Array[],
    private readonly context: JobContext,
  ) {}

  /** Null where none are held out. @param directory for scratch files */
  static async create(
    config: LlamaConfig,
    { heldOut, sequenceLength }: CalibrationInputs,
    { directory, kept }: { directory: string; kept: KeptActivations | null },
    context: JobContext,
  ): Promise<HeldOutWindows | null> {
    if (!heldOut.length) return null;
    const shape = { sequenceLength, hiddenSize: config.hiddenSize };
    const store = await ActivationGenerations.open(directory, 'held-out', { shape, kept, signal: context.signal });
    // None is left out: they only measure.
    const screen = new WindowScreen(heldOut.length, { ...context, budget: 0, what: 'window held out' });
    const makeRunner = () => new BlockRunner(config, sequenceLength, heldOut.length, store, screen, context);
    const runner = await closingOnFailure(makeRunner, () => store.close());
    return new HeldOutWindows(runner, store, heldOut, context);
  }

  async embed(table: Tensor): Promise<void> {
    await this.runner.embed(table, this.windows, () => {});
    this.store.advance();
  }

  /** Looks at a block before it is quantized. @param runner of the calibration windows */
  async look(block: BlockGraph, weights: Weights, runner: BlockRunner): Promise<BlockMeter> {
    const [calibration, heldOut] = [new HessianCollector(), new HessianCollector()];
    const meter = new BlockMeter(block, weights, calibration, heldOut, this.context);
    try {
      await runner.run(block, weights, {
        tap: calibration.tap,
        onWindow: () => calibration.ran(),
        restart: () => calibration.reset(),
      });
      await this.runner.run(block, weights, { tap: heldOut.tap, onWindow: () => heldOut.ran() });
      return meter;
    } catch (error) {
      meter[Symbol.dispose]();
      throw error;
    }
  }

  /** Feeds the next block, on the disk, too. */
  async advance(block: BlockGraph, weights: Weights): Promise<Checksums> {
    await this.runner.run(block, weights, { into: this.store, onWindow: () => {} });
    this.store.advance();
    return await this.store.sync();
  }

  async close(): Promise<void> {
    this.runner.dispose();
    await this.store.close();
  }
}

/** The statistics of one block, and its weights as they were: views that keep their memory. */
export class BlockMeter {
  readonly #originals: ReadonlyMap<string, Tensor>;

  constructor(
    private readonly block: BlockGraph,
    weights: Weights,
    private readonly calibration: HessianCollector,
    private readonly heldOut: HessianCollector,
    private readonly context: JobContext,
  ) {
    const viewOf = (name: string) => {
      const w = weights.get(name) as Tensor;
      return w.reshape(w.shape);
    };
    this.#originals = new Map(block.linears.map(({ name }) => [name, viewOf(name)]));
  }

  /** @param weights the block's, each replaced by what its packed one stands for. */
  async measure(weights: Weights, layers: LayerWriter): Promise<void> {
    for (const input of new Set(this.block.linears.map((node) => node.input))) {
      using seen = this.calibration.take(input).hessian;
      using unseen = this.heldOut.take(input).hessian;
      for (const { name } of this.block.linears.filter((node) => node.input === input)) {
        const [w, quantized] = [this.#originals.get(name) as Tensor, weights.get(name) as Tensor];
        const lossIn = (hessian: Tensor) => proxyLoss(w, quantized, hessian, { ...this.context, where: name });
        layers.record(name, { calibrationError: await lossIn(seen), heldOutError: await lossIn(unseen) });
      }
    }
  }

  [Symbol.dispose](): void {
    this.calibration.dispose();
    this.heldOut.dispose();
    for (const view of this.#originals.values()) view.dispose();
  }
}
