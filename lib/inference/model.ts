import { join } from 'node:path';
import { lutraError } from '../errors.js';
import { readCheckpoint } from '../formats/index.js';
import { buildGraph, type LlamaConfig, type ModelGraph, parseConfig } from '../models/index.js';
import { type Device, requireCuda } from '../native/index.js';
import { checkBatchInvariant, checkMode, checkThreads, type Mode, type Weight } from '../ops/index.js';
import { Tensor } from '../tensor/index.js';
import type { Tokenizer } from '../tokenizer/index.js';
import { type GeneratedToken, type GenerationOptions, generate } from './generation.js';
import { generationEosIds } from './generation-config.js';
import { checkIds } from './ids.js';
import { loadTokenizer } from './load-tokenizer.js';
import { disposeWeights, loadWeights } from './load-weights.js';
import { prefillChunk, Session, type SessionModel, type SessionOptions } from './session.js';

export interface LoadOptions {
  /** 'cuda' is device 0 of the CUDA backend. 'auto', the default, is the processor in this version; `model.device` says it. */
  device?: 'cpu' | 'auto' | 'cuda' | `cuda:${number}` | undefined;
  /** Accuracy of products with packed weights; 'accurate' by default. */
  mode?: Mode | undefined;
  /**
   * The same bits for a token whether it is computed alone or together with any number of others: a prompt computed at
   * once and token by token gives identical logits. Slower for many tokens. Default false.
   */
  batchInvariant?: boolean | undefined;
  /** Lanes to use at most; 0, the default, uses the whole pool. */
  threads?: number | undefined;
  signal?: AbortSignal | undefined;
}

interface ModelParts {
  readonly graph: ModelGraph;
  readonly weights: Map<string, Weight>;
  readonly tokenizer: Tokenizer;
  readonly eosIds: ReadonlySet<number>;
  readonly bitsPerWeight: number | null;
  readonly bitsPerParameter: number;
  readonly mode: Mode;
  readonly batchInvariant: boolean;
  readonly threads: number;
  readonly device: Device;
}

/** A loaded model: weights in native memory, a tokenizer, and what they are used with. Made by `loadModel`. */
export class Model implements SessionModel {
  readonly graph: ModelGraph;
  readonly tokenizer: Tokenizer;
  /** Tokens that end a text: of config.json, generation_config.json and the tokenizer. */
  readonly eosIds: ReadonlySet<number>;
  /** 8 · bytes of the quantized matrices / their weights; null where nothing is quantized. */
  readonly bitsPerWeight: number | null;
  /** 8 · bytes of all tensors / all parameters. */
  readonly bitsPerParameter: number;
  readonly mode: Mode;
  /** Whether a token's logits do not depend on the tokens computed with it. */
  readonly batchInvariant: boolean;
  readonly threads: number;
  readonly device: Device;
  readonly #weights: Map<string, Weight>;
  #disposed = false;

  constructor(parts: ModelParts) {
    this.graph = parts.graph;
    this.tokenizer = parts.tokenizer;
    this.eosIds = parts.eosIds;
    this.bitsPerWeight = parts.bitsPerWeight;
    this.bitsPerParameter = parts.bitsPerParameter;
    this.mode = parts.mode;
    this.batchInvariant = parts.batchInvariant;
    this.threads = parts.threads;
    this.device = parts.device;
    this.#weights = parts.weights;
  }

  get config(): LlamaConfig {
    return this.graph.config;
  }

  /** @throws `LUTRA_E_DISPOSED` */
  get weights(): ReadonlyMap<string, Weight> {
    if (this.#disposed) throw lutraError('LUTRA_E_DISPOSED', { message: 'the model was disposed', where: 'Model' });
    return this.#weights;
  }

  /**
   * Continues a prompt, token by token.
   *
   * @param prompt text, encoded as the tokenizer does by default, or ids, used as they are.
   * @throws `LUTRA_E_OPTION` for unusable options and prompts; `LUTRA_E_DISPOSED`; `signal.reason`
   */
  generate(prompt: string | readonly number[], options: GenerationOptions = {}): AsyncIterable<GeneratedToken> {
    return generate(this, prompt, options);
  }

  /**
   * Logits after every id: f32 [n, vocabulary], of the sequence alone, from its first position on.
   *
   * @throws `LUTRA_E_OPTION` for no ids, more than the context, or ids outside the vocabulary; `signal.reason`
   */
  async logits(
    ids: ArrayLike<number>,
    options: { mode?: Mode | undefined; signal?: AbortSignal | undefined } = {},
  ): Promise<Tensor> {
    checkIds(this.config, ids, 'ids');
    const { vocabularySize } = this.config;
    const { mode, signal } = options;
    const sequence = Int32Array.from(ids);
    const chunk = Math.min(sequence.length, prefillChunk);
    using session = new Session(this, { capacity: sequence.length, chunk, logits: 'all', mode });
    const all = Tensor.zeros('f32', [sequence.length, vocabularySize]);
    try {
      for (let begin = 0; begin < sequence.length; begin += chunk) {
        const part = await session.append(sequence.subarray(begin, begin + chunk), signal);
        all.write(part.read(), begin * vocabularySize);
      }
      return all;
    } catch (error) {
      all.dispose();
      throw error;
    }
  }

  /** One sequence of this model, with its own KV cache and buffers: dispose it. */
  session(options: SessionOptions): Session {
    return new Session(this, options);
  }

  /** Gives the weights back when running calls end. Idempotent; any later use throws `LUTRA_E_DISPOSED`. */
  dispose(): void {
    this.#disposed = true;
    disposeWeights(this.#weights);
  }

  [Symbol.dispose](): void {
    this.dispose();
  }
}

/**
 * Loads a Hugging Face directory of the Llama family, quantized by lutra or not.
 *
 * @throws `LUTRA_E_NOT_FOUND`, `LUTRA_E_SHAPE`, `LUTRA_E_UNSUPPORTED_MODEL` where the directory is not such a model;
 *   what `requireCuda` throws where 'cuda' cannot be used; `LUTRA_E_OPTION` for an unknown device or mode, or unusable threads; format errors of `readCheckpoint`; `signal.reason`
 */
export async function loadModel(dir: string, options: LoadOptions = {}): Promise<Model> {
  const { mode = 'accurate', batchInvariant = false, threads = 0, signal } = options;
  const device = chosenDevice(options.device ?? 'auto');
  checkMode(mode, 'loadModel.mode');
  checkBatchInvariant(batchInvariant, 'loadModel.batchInvariant');
  checkThreads(threads, 'loadModel.threads');
  signal?.throwIfAborted();
  await using checkpoint = await readCheckpoint(dir);
  const where = join(dir, 'config.json');
  const config = parseConfig(checkpoint.config, where);
  const graph = buildGraph(config, (name) => checkpoint.has(name));
  const tokenizer = await loadTokenizer(dir);
  checkVocabulary(config, tokenizer, dir);
  const eosIds = new Set([...config.eosIds, ...tokenizer.eosIds, ...(await generationEosIds(dir))]);
  const weights = await loadWeights(checkpoint, graph, signal);
  const { bitsPerWeight, bitsPerParameter } = checkpoint;
  const accuracy = { mode, batchInvariant };
  return new Model({
    graph,
    weights,
    tokenizer,
    eosIds,
    bitsPerWeight,
    bitsPerParameter,
    ...accuracy,
    threads,
    device,
  });
}

function chosenDevice(device: string): Device {
  if (device === 'cpu' || device === 'auto') return 'cpu';
  const where = 'loadModel.device';
  const index = /^cuda(?::(\d{1,3}))?$/.exec(device);
  if (!index)
    throw lutraError('LUTRA_E_OPTION', {
      message: 'unknown device',
      where,
      found: device,
      expected: "'cpu', 'cuda' or 'auto'",
    });
  const number = Number(index[1] ?? 0);
  requireCuda(number, where);
  return `cuda:${number}`;
}

/** Ids beyond the embedding would read outside of it. Fewer ids than rows are fine: many models pad their embedding. */
function checkVocabulary(config: LlamaConfig, tokenizer: Tokenizer, dir: string): void {
  if (tokenizer.vocabularySize > config.vocabularySize)
    throw lutraError('LUTRA_E_SHAPE', {
      message: 'the tokenizer has ids beyond the embedding table',
      where: join(dir, 'tokenizer.json'),
      found: `id ${tokenizer.vocabularySize - 1}`,
      expected: `ids below ${config.vocabularySize}`,
    });
}
