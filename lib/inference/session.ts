import { lutraError } from '../errors.js';
import {
  type BlockCache,
  BlockScratch,
  createBlockCache,
  denseWeight,
  type ModelGraph,
  recordBlock,
  recordEmbedding,
  recordHead,
  ropeTable,
} from '../models/index.js';
import type { Device } from '../native/index.js';
import { checkMode, type Mode, type ProductOptions, Program, type Weight } from '../ops/index.js';
import { Tensor } from '../tensor/index.js';
import { nonFinite } from './sampler.js';

/** Tokens computed together: long enough for matrix products, short enough for small buffers. */
export const prefillChunk = 256;

/** What a session computes with; `Model` is one. */
export interface SessionModel {
  readonly graph: ModelGraph;
  readonly weights: ReadonlyMap<string, Weight>;
  readonly mode: Mode;
  readonly batchInvariant: boolean;
  readonly threads: number;
  readonly device: Device;
}

export interface SessionOptions {
  /** Positions that the KV cache holds. */
  capacity: number;
  /** Tokens computed together at most. */
  chunk: number;
  /** Whether logits are wanted after every token of a chunk, or after the last one only, or of them the largest one's id. */
  logits: 'all' | 'last' | 'top';
  /** Instead of the model's. */
  mode?: Mode | undefined;
}

/** A recorded step of a fixed number of tokens, with views of the session's buffers. */
interface Step {
  readonly program: Program;
  readonly ids: Tensor;
  readonly logits: Tensor;
}

function disposeStep({ program, ids, logits }: Step): void {
  program.dispose();
  ids.dispose();
  logits.dispose();
}

/**
 * One sequence of a model: its KV cache, its activations and its programs. A program is recorded once for each number of
 * tokens that comes again (1, and whole chunks) and replayed with the position.
 */
export class Session {
  readonly #model: SessionModel;
  readonly #options: SessionOptions;
  readonly #products: ProductOptions;
  readonly #caches: readonly BlockCache[];
  readonly #cosSin: Tensor;
  readonly #ids: Tensor;
  readonly #hidden: Tensor;
  readonly #scratch: BlockScratch;
  readonly #logits: Tensor;
  /** For 'top': the likeliest id after the last token, and its logit. */
  readonly #top = Tensor.zeros('i32', [1]);
  readonly #largest = Tensor.zeros('f32', [1]);
  readonly #steps = new Map<number, Step>();
  /** The last step, where its number of tokens will hardly come again: kept for the sake of its logits. */
  #passing: Step | null = null;
  #position = 0;

  constructor(model: SessionModel, options: SessionOptions) {
    const { config } = model.graph;
    const { capacity, chunk } = options;
    this.#model = model;
    this.#options = options;
    const mode = checkMode(options.mode ?? model.mode, 'session.mode');
    this.#products = { mode, batchInvariant: model.batchInvariant };
    this.#caches = model.graph.blocks.map(() => createBlockCache(config, capacity));
    this.#cosSin = ropeTable(config, capacity);
    this.#ids = Tensor.zeros('i32', [chunk]);
    this.#hidden = Tensor.zeros('f32', [chunk, config.hiddenSize]);
    this.#scratch = new BlockScratch(config, chunk);
    this.#logits = Tensor.zeros('f32', [options.logits === 'all' ? chunk : 1, config.vocabularySize]);
  }

  /** Tokens in the cache: the position of the next one. */
  get position(): number {
    return this.#position;
  }

  /** Forgets the sequence. */
  reset(): void {
    this.#position = 0;
  }

  /**
   * Computes the next 1 to `chunk` tokens off the JavaScript thread.
   *
   * @returns f32 [n or 1, vocabulary], or for 'top' i32 [1], valid until the next call.
   * @throws `LUTRA_E_NON_FINITE` for 'top' where the logits hold a NaN or are all infinite; `LUTRA_E_SHAPE` where the cache or the chunk is too small; `signal.reason`
   */
  async append(ids: ArrayLike<number>, signal?: AbortSignal): Promise<Tensor> {
    const step = this.#begin(ids);
    await step.program.runAsync({ position: this.#position, threads: this.#model.threads, signal });
    this.#position += ids.length;
    return this.#answer(step);
  }

  /** As `append`, for one token, on the calling thread. */
  appendSync(id: number): Tensor {
    const step = this.#begin([id]);
    step.program.run({ position: this.#position, threads: this.#model.threads });
    this.#position++;
    return this.#answer(step);
  }

  #answer({ program, logits }: Step): Tensor {
    const top = this.#options.logits === 'top';
    if (this.#model.device !== 'cpu')
      for (const tensor of top ? [this.#top, this.#largest] : [logits]) program.download(tensor);
    if (!top) return logits;
    const [id, largest] = [this.#top.read()[0]!, this.#largest.read()[0]!];
    if (!Number.isFinite(largest)) throw nonFinite(id);
    return this.#top;
  }

  dispose(): void {
    for (const step of this.#steps.values()) disposeStep(step);
    this.#steps.clear();
    this.#forgetPassing();
    for (const { keys, values } of this.#caches) {
      keys.dispose();
      values.dispose();
    }
    this.#scratch.dispose();
    for (const tensor of [this.#cosSin, this.#ids, this.#hidden, this.#logits, this.#top, this.#largest])
      tensor.dispose();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }

  #begin(ids: ArrayLike<number>): Step {
    const n = ids.length;
    const { capacity, chunk } = this.#options;
    if (n < 1 || n > chunk || this.#position + n > capacity)
      throw lutraError('LUTRA_E_SHAPE', {
        message: `cannot compute ${n} tokens from position ${this.#position} on`,
        where: 'Session.append',
        expected: `1 to ${chunk} tokens, ${capacity} positions`,
      });
    this.#forgetPassing();
    const step = this.#steps.get(n) ?? this.#record(n);
    if (n === 1 || n === chunk) this.#steps.set(n, step);
    else this.#passing = step;
    step.ids.write(Int32Array.from(ids));
    if (this.#model.device !== 'cpu') step.program.upload(step.ids);
    return step;
  }

  #forgetPassing(): void {
    if (this.#passing) disposeStep(this.#passing);
    this.#passing = null;
  }

  #record(n: number): Step {
    const { graph, weights } = this.#model;
    const { config } = graph;
    const program = new Program(this.#model.device);
    const first = this.#options.logits === 'all' ? 0 : n - 1;
    const ids = this.#ids.rows(0, n);
    const logits = this.#logits.rows(0, n - first);
    // The program keeps the memory of what it was given.
    using hidden = this.#hidden.rows(0, n);
    using scratch = new BlockScratch(config, n, this.#scratch);
    using lastHidden = hidden.rows(first, n);
    using lastNormed = scratch.normed.rows(first, n);
    const products = this.#products;
    try {
      if (this.#model.device !== 'cpu')
        for (const { keys, values } of this.#caches) for (const cache of [keys, values]) program.reserve(cache);
      recordEmbedding(program, denseWeight(weights, graph.embedding), ids, hidden);
      graph.blocks.forEach((block, index) => {
        const step = { hidden, scratch, cache: this.#caches[index]!, cosSin: this.#cosSin, products };
        recordBlock(program, config, block, weights, step);
      });
      const head = { norm: denseWeight(weights, graph.finalNorm), lmHead: weights.get(graph.lmHead)! };
      recordHead(program, config, head, { hidden: lastHidden, normed: lastNormed, logits, products });
      if (this.#options.logits === 'top') program.argMax(logits, this.#top, this.#largest);
    } catch (error) {
      disposeStep({ program, ids, logits });
      throw error;
    }
    return { program, ids, logits };
  }
}
