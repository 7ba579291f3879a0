import {
  type AttentionTap,
  type BlockCache,
  type BlockGraph,
  BlockScratch,
  createBlockCache,
  type LlamaConfig,
  recordBlock,
  recordEmbedding,
  recordQueriesAndKeys,
  ropeTable,
  type Tap,
} from '../models/index.js';
import { Program, type Weight } from '../ops/index.js';
import type { BlockSample } from '../quantization/index.js';
import { Tensor } from '../tensor/index.js';
import type { Activations } from './activation-store.js';
import type { WindowScreen } from './window-screen.js';

export interface RunOptions {
  threads: number;
  signal: AbortSignal | undefined;
}

export interface BlockPass {
  /** Records what the block's linear layers read. */
  tap?: Tap | undefined;
  /** Records what its attention works on. */
  attentionTap?: AttentionTap | undefined;
  /** Nothing of the block is run but what `attentionTap` sees; not with `into`. */
  attentionOnly?: boolean | undefined;
  /** Where the block's results go: the runner's own store makes them the next inputs. */
  into?: Activations | undefined;
  /** Called when a window, counted from 1, is through. */
  onWindow(window: number): void;
  /** Forgets what taps have recorded: a window among them is to be left out, and all others come again. */
  restart?(): void;
}

/** Takes all calibration windows through one block after another: one window at a time, each from position 0. */
export class BlockRunner {
  readonly #hidden: Tensor;
  readonly #cosSin: Tensor;

  constructor(
    private readonly config: LlamaConfig,
    readonly sequenceLength: number,
    private readonly windows: number,
    private readonly store: Activations,
    private readonly screen: WindowScreen,
    private readonly options: RunOptions,
  ) {
    this.#hidden = Tensor.zeros('f32', [sequenceLength, config.hiddenSize]);
    this.#cosSin = ropeTable(config, sequenceLength);
  }

  /** Writes the embeddings of the windows' ids to the store. */
  async embed(table: Tensor, windows: readonly Int32Array[], onWindow: (window: number) => void): Promise<void> {
    using ids = Tensor.zeros('i32', [this.#hidden.shape[0] ?? 0]);
    using program = new Program();
    recordEmbedding(program, table, ids, this.#hidden);
    for (const [index, window] of windows.entries()) {
      ids.write(window);
      await program.runAsync(this.options);
      await this.store.write(index, this.#hidden);
      onWindow(index + 1);
    }
  }

  /** Tokens of the windows that are not left out. */
  get tokens(): number {
    return this.screen.good.length * this.sequenceLength;
  }

  /** Numbers of those windows, from 0. */
  get goodWindows(): readonly number[] {
    return this.screen.good;
  }

  /**
   * Runs every window through a block in fp32, but for those that are left out.
   *
   * @throws `LUTRA_E_NON_FINITE` where one makes something else than numbers and no more may be left out
   */
  async run(block: BlockGraph, weights: ReadonlyMap<string, Weight>, pass: BlockPass): Promise<void> {
    using memory = new PassMemory(this.config, this.sequenceLength);
    using program = this.#record(memory, block, weights, pass);
    for (let window = 0; window < this.windows; window++) {
      if (!this.screen.isBad(window)) {
        await this.store.read(window, this.#hidden);
        await program.runAsync({ ...this.options, position: 0 });
        if (!pass.attentionOnly && (await this.screen.drops(window, this.#hidden, block)) && pass.restart) {
          pass.restart();
          window = -1;
          continue;
        }
      }
      // Of a window that is left out something is stored, too: all of them have checksums.
      if (pass.into && this.screen.isBad(window)) this.#hidden.fill(0);
      await pass.into?.write(window, this.#hidden);
      if (!this.screen.isBad(window)) pass.onWindow(window + 1);
    }
  }

  /** What the block's linear layers read in whole windows, spread evenly, of at least `tokens` tokens where there are so many. */
  async sample(block: BlockGraph, weights: ReadonlyMap<string, Weight>, tokens: number): Promise<BlockSample> {
    const [length = 0] = this.#hidden.shape;
    const windows = this.screen.good;
    const count = Math.min(windows.length, Math.ceil(tokens / length));
    const inputs = new Map<string, Tensor>();
    const dispose = () => {
      for (const tensor of inputs.values()) tensor.dispose();
    };
    using memory = new PassMemory(this.config, length);
    try {
      for (let index = 0; index < count; index++) {
        const tap: Tap = (input, x, program) => {
          const kept = inputs.get(input) ?? Tensor.zeros('f32', [count * length, x.shape[1] ?? 0]);
          inputs.set(input, kept);
          using rows = kept.rows(index * length, (index + 1) * length);
          program.cacheAppend(x, rows);
        };
        using program = this.#record(memory, block, weights, { tap });
        const window = windows[Math.floor((index * windows.length) / count)]!;
        await this.store.read(window, this.#hidden);
        await program.runAsync({ ...this.options, position: 0 });
        if (!(await this.screen.drops(window, this.#hidden, block))) continue;
        dispose();
        return await this.sample(block, weights, tokens);
      }
      return { inputs, sequenceLength: length, [Symbol.dispose]: dispose };
    } catch (error) {
      dispose();
      throw error;
    }
  }

  #record(
    { scratch, cache }: PassMemory,
    block: BlockGraph,
    weights: ReadonlyMap<string, Weight>,
    { tap, attentionTap, attentionOnly }: Pick<BlockPass, 'tap' | 'attentionTap' | 'attentionOnly'>,
  ): Program {
    const program = new Program();
    const record = attentionOnly ? recordQueriesAndKeys : recordBlock;
    record(program, this.config, block, weights, {
      hidden: this.#hidden,
      scratch,
      cache,
      cosSin: this.#cosSin,
      products: { mode: 'exact' },
      tap,
      attentionTap,
    });
    return program;
  }

  dispose(): void {
    this.#hidden.dispose();
    this.#cosSin.dispose();
  }
}

/** What one window needs inside a block: there while windows run, not while layers are solved. */
class PassMemory {
  readonly scratch: BlockScratch;
  readonly cache: BlockCache;

  constructor(config: LlamaConfig, sequenceLength: number) {
    this.scratch = new BlockScratch(config, sequenceLength);
    this.cache = createBlockCache(config, sequenceLength);
  }

  [Symbol.dispose](): void {
    this.scratch.dispose();
    this.cache.keys.dispose();
    this.cache.values.dispose();
  }
}
