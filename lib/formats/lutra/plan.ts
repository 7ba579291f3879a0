import { readdir } from 'node:fs/promises';
import { lutraError } from '../../errors.js';
import {
  defaultShardBytes,
  type PlannedTensor,
  planSafetensors,
  type SafetensorsPlan,
  type SafetensorsReader,
} from '../safetensors/index.js';
import { type JsonObject, type JsonValue, quoted } from '../strict-json.js';
import { onFile } from '../system-error.js';
import type { Checkpoint } from './checkpoint.js';
import { listOf, partsOf } from './parts.js';
import {
  formatVersion,
  type QuantizationConfig,
  type QuantizedEntry,
  quantizationConfigJson,
} from './quantization-config.js';

/** The part of a normalised recipe that the checkpoint's header repeats; the whole is stored as it is. */
export interface StoredRecipe {
  grid: { bits: number; groupSize: number; symmetric: boolean };
}

export interface CheckpointPlanOptions {
  /** The unquantized checkpoint that gives the configuration, the files and all tensors but the quantized ones. */
  source: Checkpoint;
  /** The matrices that will be put, by their logical names, in the order in which they are to be stored. */
  quantized: ReadonlyMap<string, QuantizedEntry>;
  /** Other tensors that will be put instead of copied; the source need not hold them. */
  replaced?: readonly PlannedTensor[] | undefined;
  /** Keys of config.json that will be others than the source's. */
  config?: JsonObject | undefined;
  recipe: StoredRecipe;
  /** Default 5 GB. */
  shardBytes?: number | undefined;
}

/** What a lutra checkpoint will consist of, known before the first tensor is quantized. */
export interface CheckpointPlan {
  readonly source: Checkpoint;
  /** The config.json to be written. */
  readonly config: JsonObject;
  readonly quantized: ReadonlyMap<string, QuantizedEntry>;
  /** Tensors that are copied byte for byte: the name to write by the name in the source. */
  readonly copied: ReadonlyMap<string, string>;
  /** Names of the other files that are copied. */
  readonly files: readonly string[];
  readonly safetensors: SafetensorsPlan;
}

const embedding = 'model.embed_tokens.weight';
const head = 'lm_head.weight';

/** Files beside the weights that a model needs or whose terms it is under. */
const copiedFiles =
  /^(tokenizer\.(json|model)|tokenizer_config\.json|special_tokens_map\.json|added_tokens\.json|vocab\.(json|txt)|merges\.txt|chat_template\.(jinja|json)|generation_config\.json|(licen[cs]e|notice|use_policy)(\..*)?)$/i;

/**
 * Plans a quantized checkpoint: quantized matrices first, then the rest in the order of the source, tied embeddings once as
 * `model.embed_tokens.weight`. Reads the source's headers only, and both copies of tied embeddings where it stores two.
 *
 * @throws `LUTRA_E_NOT_FOUND`, `LUTRA_E_SHAPE` where a matrix is not in the source as planned; `LUTRA_E_UNSUPPORTED_MODEL`
 *   where the source is quantized already or ties embeddings that differ; `LUTRA_E_OPTION`
 */
export async function planCheckpoint(options: CheckpointPlanOptions): Promise<CheckpointPlan> {
  const { source, quantized, replaced = [], recipe, shardBytes = defaultShardBytes } = options;
  const sourceConfig: JsonObject = { ...source.config, ...options.config };
  if (source.quantization)
    throw lutraError('LUTRA_E_UNSUPPORTED_MODEL', {
      message: 'the model is quantized already',
      where: source.directory,
      hint: 'Quantize the original.',
    });
  for (const [name, entry] of quantized) requireMatrix(source, name, entry);
  const put = new Set([...quantized.keys(), ...replaced.map(({ name }) => name)]);
  const copied = await copiedTensors(source, sourceConfig, put);
  const stored: PlannedTensor[] = [];
  for (const [name, entry] of quantized) for (const part of listOf(partsOf(name, entry))) stored.push(part.stored);
  for (const [name, from] of copied) {
    const { dtype, shape } = source.reader.entry(from);
    stored.push({ name, dtype, shape });
  }
  stored.push(...replaced);
  const config: QuantizationConfig = {
    formatVersion,
    bits: recipe.grid.bits,
    groupSize: recipe.grid.groupSize,
    symmetric: recipe.grid.symmetric,
    recipe: recipe as StoredRecipe & JsonObject,
    modulesToNotConvert: unconvertedModules(source, copied, replaced),
    tensors: quantized,
  };
  return {
    source,
    config: { ...sourceConfig, quantization_config: quantizationConfigJson(config) as JsonValue },
    quantized,
    copied,
    files: await filesToCopy(source.directory),
    safetensors: planSafetensors(stored, { shardBytes }),
  };
}

function requireMatrix(source: Checkpoint, name: string, { layout }: QuantizedEntry): void {
  const { shape } = source.tensor(name);
  if (shape.length !== 2 || shape[0] !== layout.rows || shape[1] !== layout.cols)
    throw lutraError('LUTRA_E_SHAPE', {
      message: 'the layout does not fit the matrix',
      where: `${source.directory}, tensor ${quoted(name)}`,
      found: `[${shape}]`,
      expected: `[${layout.rows}, ${layout.cols}]`,
    });
}

async function copiedTensors(
  source: Checkpoint,
  config: JsonObject,
  put: ReadonlySet<string>,
): Promise<Map<string, string>> {
  const copied = new Map<string, string>();
  for (const name of source.names) if (!put.has(name)) copied.set(name, name);
  // Also where one of them is replaced: what it is made from must be what the other one is.
  const storesBoth = source.has(embedding) && source.has(head);
  if (source.config.tie_word_embeddings === true && storesBoth) await requireEqual(source, embedding, head);
  if (config.tie_word_embeddings !== true || !copied.has(head)) return copied;
  // Written once, under the one name, at the place that the source gives it.
  const tied = copied.has(embedding) ? embedding : head;
  return new Map(
    [...copied].flatMap(([name, from]) => (name === tied ? [[embedding, from]] : name === head ? [] : [[name, from]])),
  );
}

async function requireEqual(source: Checkpoint, a: string, b: string): Promise<void> {
  const [first, second] = [source.tensor(a), source.tensor(b)];
  const alike = first.dtype === second.dtype && `${first.shape}` === `${second.shape}`;
  if (alike && (await sameBytes(source.reader, a, b))) return;
  throw lutraError('LUTRA_E_UNSUPPORTED_MODEL', {
    message: `config.json ties the embeddings, but ${a} and ${b} differ`,
    where: source.directory,
    hint: 'Set "tie_word_embeddings" to false if the model has an output layer of its own.',
  });
}

async function sameBytes(reader: SafetensorsReader, a: string, b: string): Promise<boolean> {
  const others = reader.bytes(b);
  for await (const piece of reader.bytes(a)) {
    const other = await others.next();
    if (other.done || Buffer.compare(piece, other.value) !== 0) return false;
  }
  return true;
}

/** Modules of every matrix that stays as it is: embedding, output layer and whatever linear layer was left out. */
function unconvertedModules(
  source: Checkpoint,
  copied: ReadonlyMap<string, string>,
  replaced: readonly PlannedTensor[],
): string[] {
  const shapes = [...copied].map(([name, from]) => [name, source.tensor(from).shape] as const);
  for (const { name, shape } of replaced) shapes.push([name, shape]);
  return shapes
    .filter(([name, shape]) => name.endsWith('.weight') && shape.length === 2)
    .map(([name]) => name.slice(0, -'.weight'.length));
}

async function filesToCopy(directory: string): Promise<string[]> {
  const entries = await onFile(directory, () => readdir(directory, { withFileTypes: true }));
  const files = entries.filter((entry) => !entry.isDirectory() && copiedFiles.test(entry.name));
  return files.map(({ name }) => name).sort();
}
