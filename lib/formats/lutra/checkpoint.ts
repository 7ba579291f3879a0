import { join } from 'node:path';
import { LutraError, lutraError } from '../../errors.js';
import { addon, cancellable, taskIds } from '../../native/index.js';
import { elements, QuantizedTensor, type Tensor } from '../../tensor/index.js';
import { type ModelJson, readModelJson } from '../json-file.js';
import { type ReadLimits, withDefaults } from '../limits.js';
import { checkpointHint, requireDirectory } from '../model-directory.js';
import { openSafetensors, type SafetensorsDtype, type SafetensorsReader } from '../safetensors/index.js';
import { type JsonObject, quoted } from '../strict-json.js';
import { listOf, type Part, type Parts, partSuffixes, partsOf, stemOf } from './parts.js';
import { parseQuantizationConfig, type QuantizationConfig, type QuantizedEntry } from './quantization-config.js';

export const configFile = 'config.json';

/** One logical tensor of a checkpoint, before it is loaded. */
export interface CheckpointTensor {
  readonly name: string;
  readonly shape: readonly number[];
  /** Bytes stored, padding included. */
  readonly bytes: number;
  /** The stored element type; null for quantized matrices. */
  readonly dtype: SafetensorsDtype | null;
  /** How a quantized matrix is stored; null for the others. */
  readonly quantized: QuantizedEntry | null;
}

/** A Hugging Face directory, quantized by lutra or not: its configuration and its tensors by their logical names. */
export class Checkpoint {
  /** Bytes of all tensors. */
  readonly bytes: number;
  /** 8 · bytes stored for the quantized matrices / their weights; null where nothing is quantized. */
  readonly bitsPerWeight: number | null;
  /** 8 · bytes of all tensors / all parameters. */
  readonly bitsPerParameter: number;

  /** Made by `readCheckpoint`. */
  constructor(
    readonly directory: string,
    /** config.json as it stands there. */
    readonly config: JsonObject,
    /** SHA-256 of the bytes that `config` was read from, in hexadecimal. */
    readonly configHash: string,
    readonly quantization: QuantizationConfig | null,
    readonly tensors: ReadonlyMap<string, CheckpointTensor>,
    /** The stored tensors, of which a quantized matrix has several. */
    readonly reader: SafetensorsReader,
  ) {
    const all = [...tensors.values()];
    const quantized = all.filter((tensor) => tensor.quantized);
    this.bytes = sum(all, ({ bytes }) => bytes);
    this.bitsPerParameter = (8 * this.bytes) / sum(all, ({ shape }) => elements(shape));
    this.bitsPerWeight = quantized.length
      ? (8 * sum(quantized, ({ bytes }) => bytes)) / sum(quantized, ({ shape }) => elements(shape))
      : null;
  }

  /** Logical names, for example `model.layers.0.self_attn.q_proj.weight`. */
  get names(): readonly string[] {
    return [...this.tensors.keys()];
  }
  has(name: string): boolean {
    return this.tensors.has(name);
  }

  /** @throws `LUTRA_E_NOT_FOUND` */
  tensor(name: string): CheckpointTensor {
    const tensor = this.tensors.get(name);
    if (tensor) return tensor;
    throw lutraError('LUTRA_E_NOT_FOUND', {
      message: 'the checkpoint has no such tensor',
      where: this.directory,
      found: quoted(name),
    });
  }

  /**
   * Loads a tensor into native memory: packed where it is quantized, else in its stored dtype.
   *
   * @throws `LUTRA_E_NOT_FOUND`, `LUTRA_E_DTYPE`, `LUTRA_E_TRUNCATED`, `LUTRA_E_MEMORY`, `LUTRA_E_DISPOSED`;
   *   `LUTRA_E_NON_FINITE` and `LUTRA_E_HEADER` for scales, offsets or padding of a quantized matrix that cannot be right
   */
  async load(name: string, options: { signal?: AbortSignal | undefined } = {}): Promise<Tensor | QuantizedTensor> {
    const { quantized } = this.tensor(name);
    if (!quantized) return this.reader.load(name, options);
    const parts = partsOf(name, quantized);
    const loaded = new Map<Part, Tensor>();
    try {
      for (const part of listOf(parts)) {
        const tensor = await this.#part(part, options.signal);
        loaded.set(part, tensor);
        if (!wholeDtypes.includes(part.stored.dtype)) await this.#requireFinite(part, tensor, options.signal);
      }
      return assemble(quantized, parts, loaded, this.#place(name));
    } catch (error) {
      for (const tensor of loaded.values()) tensor.dispose();
      throw error;
    }
  }

  /** Closes the files when running loads have ended. Idempotent. */
  async close(): Promise<void> {
    await this.reader.close();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  /** A part without the zeros behind it. */
  async #part(part: Part, signal: AbortSignal | undefined): Promise<Tensor> {
    const whole = await this.reader.load(part.stored.name, { signal });
    if (whole.elements === part.elements) return whole;
    try {
      const padding = whole.rows(part.elements, whole.elements);
      const clean = padding.read().every((value) => value === 0);
      padding.dispose();
      if (clean) return whole.rows(0, part.elements);
      throw lutraError('LUTRA_E_HEADER', {
        message: 'the padding holds something else than zeros',
        where: this.#place(part.stored.name),
      });
    } finally {
      whole.dispose();
    }
  }

  async #requireFinite(part: Part, tensor: Tensor, signal: AbortSignal | undefined): Promise<void> {
    const where = this.#place(part.stored.name);
    const [index] = await cancellable(
      signal,
      (cancel) => addon().task(taskIds.findNonFinite, [tensor.native], [], 0, cancel),
      where,
    );
    if (index !== undefined && index >= 0)
      throw lutraError('LUTRA_E_NON_FINITE', { message: `element ${index} is not a number`, where, found: index });
  }

  #place(name: string): string {
    return `${this.reader.entries.get(name)?.file ?? this.directory}, tensor ${quoted(name)}`;
  }
}

/** Element types whose every value is a number. */
const wholeDtypes: readonly SafetensorsDtype[] = ['U8', 'I8'];

/** The matrix of its loaded parts. Those that are given a shape are put back: `loaded` stays what is to be disposed on failure. */
function assemble(
  { layout, subBranch }: QuantizedEntry,
  parts: Parts,
  loaded: Map<Part, Tensor>,
  where: string,
): QuantizedTensor {
  const tensorOf = (part: Part | null | undefined) => (part ? loaded.get(part)! : null);
  const [codes, scales, offsets] = [parts.codes, parts.scales, parts.offsets].map(tensorOf);
  if (!subBranch || !parts.subBranch) return new QuantizedTensor(layout, codes!, scales!, offsets!, { where });
  const shaped = (part: Part, shape: readonly number[]) => {
    const flat = tensorOf(part)!;
    const tensor = flat.reshape(shape);
    loaded.set(part, tensor);
    flat.dispose();
    return tensor;
  };
  const pair = {
    a: shaped(parts.subBranch.a, [subBranch.rank, layout.cols]),
    b: shaped(parts.subBranch.b, [layout.rows, subBranch.rank]),
    aScales: tensorOf(parts.subBranch.aScales),
    bScales: tensorOf(parts.subBranch.bScales),
  };
  return new QuantizedTensor(layout, codes!, scales!, offsets!, { subBranch: pair, where });
}

/**
 * Opens a checkpoint directory: config.json and safetensors, quantized by lutra or not quantized at all. Headers are read
 * and checked against each other; tensors are loaded when they are asked for.
 *
 * @throws `LUTRA_E_NOT_FOUND`, `LUTRA_E_HEADER`, `LUTRA_E_OFFSETS`, `LUTRA_E_TRUNCATED`, `LUTRA_E_DTYPE`, `LUTRA_E_SHAPE`
 *   for files that are not what they should be; `LUTRA_E_FORMAT_VERSION` and `LUTRA_E_UNSUPPORTED_MODEL` for newer lutra
 *   checkpoints and for other methods' ones; `LUTRA_E_OPTION` where `directory` is no path
 */
export async function readCheckpoint(
  directory: string,
  options: { limits?: Partial<ReadLimits> } = {},
): Promise<Checkpoint> {
  await requireDirectory(directory);
  const limits = withDefaults(options.limits);
  const where = join(directory, configFile);
  const { value: config, sha256 } = await readConfig(directory, limits);
  const quantization = parseQuantizationConfig(config.quantization_config, where);
  const reader = await openSafetensors(directory, limits);
  try {
    const tensors = logicalTensors(reader, quantization, where);
    return new Checkpoint(directory, config, sha256, quantization, tensors, reader);
  } catch (error) {
    await reader.close();
    throw error;
  }
}

async function readConfig(directory: string, limits: ReadLimits): Promise<ModelJson> {
  try {
    return await readModelJson(directory, configFile, limits.configBytes, limits);
  } catch (error) {
    if (error instanceof LutraError && error.code === 'LUTRA_E_NOT_FOUND')
      throw error.withHint(await checkpointHint(directory));
    throw error;
  }
}

export type StoredSizes = Pick<Checkpoint, 'bytes' | 'bitsPerWeight' | 'bitsPerParameter'>;

/** Opens what was written, and reads its headers again: a checkpoint that cannot be read is none. */
export async function storedSizes(directory: string): Promise<StoredSizes> {
  await using checkpoint = await readCheckpoint(directory);
  const { bytes, bitsPerWeight, bitsPerParameter } = checkpoint;
  return { bytes, bitsPerWeight, bitsPerParameter };
}

/** Quantized matrices in the order of their entries, then all tensors that belong to none of them. */
function logicalTensors(reader: SafetensorsReader, quantization: QuantizationConfig | null, where: string) {
  const tensors = new Map<string, CheckpointTensor>();
  const owned = new Set<string>();
  for (const [name, quantized] of quantization?.tensors ?? []) {
    const parts = partsOf(name, quantized);
    requireParts(reader, name, parts, where);
    for (const { stored } of listOf(parts)) owned.add(stored.name);
    const { rows, cols } = quantized.layout;
    tensors.set(name, {
      name,
      shape: [rows, cols],
      bytes: sum(listOf(parts), ({ bytes }) => bytes),
      dtype: null,
      quantized,
    });
  }
  for (const { name, shape, dtype, begin, end } of reader.entries.values())
    if (!owned.has(name)) tensors.set(name, { name, shape, bytes: end - begin, dtype, quantized: null });
  return tensors;
}

/** What is stored must be what the entry says, and nothing else under the matrix's name. */
function requireParts(reader: SafetensorsReader, name: string, parts: Parts, where: string): void {
  const place = `${where}: quantization_config.tensors[${quoted(name)}]`;
  const expected = new Map(listOf(parts).map((part) => [part.stored.name, part]));
  for (const suffix of ['.weight', ...partSuffixes]) {
    const partName = stemOf(name) + suffix;
    const part = expected.get(partName);
    const entry = reader.entries.get(partName);
    if (!part && !entry) continue;
    if (!part)
      throw lutraError('LUTRA_E_HEADER', { message: `the entry leaves no room for ${quoted(partName)}`, where: place });
    if (!entry)
      throw lutraError('LUTRA_E_NOT_FOUND', { message: `the tensor ${quoted(partName)} is missing`, where: place });
    const { dtype, shape } = part.stored;
    if (entry.dtype !== dtype)
      throw lutraError('LUTRA_E_DTYPE', {
        message: 'the stored element type is not the one of the entry',
        where: `${place}, ${quoted(partName)}`,
        found: entry.dtype,
        expected: dtype,
      });
    if (entry.shape.length !== 1 || entry.shape[0] !== shape[0])
      throw lutraError('LUTRA_E_SHAPE', {
        message: 'the stored shape is not the one of the entry',
        where: `${place}, ${quoted(partName)}`,
        found: `[${entry.shape}]`,
        expected: `[${shape}]`,
      });
  }
}

function sum<T>(items: readonly T[], of: (item: T) => number): number {
  return items.reduce((total, item) => total + of(item), 0);
}
