import { lutraError } from '../../errors.js';
import { quoted } from '../strict-json.js';
import { type SafetensorsDtype, tensorBytes } from './dtypes.js';
import { lengthBytes, type TensorEntry } from './header.js';
import { singleFile } from './names.js';

/** One tensor that a writer is to write. */
export interface PlannedTensor {
  readonly name: string;
  readonly dtype: SafetensorsDtype;
  readonly shape: readonly number[];
}

export interface PlannedFile {
  readonly name: string;
  /** Length, JSON and padding: everything in front of the data. */
  readonly header: Uint8Array;
  readonly size: number;
}

/** Where every byte of the files will lie, known before the first is written. */
export interface SafetensorsPlan {
  readonly files: readonly PlannedFile[];
  readonly entries: ReadonlyMap<string, TensorEntry>;
  /** The text of the index file; null for a single file. */
  readonly index: string | null;
  /** Bytes of all tensors. */
  readonly bytes: number;
  /** Bytes of tensor data after which a new file was begun. */
  readonly shardBytes: number;
}

export interface PlanOptions {
  metadata?: Readonly<Record<string, string>>;
  /** Bytes of tensor data after which a new file begins; a larger tensor gets a file of its own. Default 5 GB. */
  shardBytes?: number;
}

/** Data begins at a multiple of this; headers are padded with spaces up to it. */
export const dataAlignment = 64;
export const defaultShardBytes = 5_000_000_000;

/**
 * Lays tensors out in the given order: one `model.safetensors`, or shards with an index.
 *
 * @throws `LUTRA_E_SHAPE` for shapes that no number of bytes holds, `LUTRA_E_OPTION` for names that appear twice
 */
export function planSafetensors(tensors: readonly PlannedTensor[], options: PlanOptions = {}): SafetensorsPlan {
  const { metadata = { format: 'pt' }, shardBytes = defaultShardBytes } = options;
  if (!Number.isSafeInteger(shardBytes) || shardBytes < 1)
    throw lutraError('LUTRA_E_OPTION', {
      message: 'a shard needs a whole number of bytes',
      where: 'shardBytes',
      found: shardBytes,
    });
  const sized = tensors.map((tensor) => ({ ...tensor, bytes: sizeOf(tensor) }));
  const shards = cut(sized, shardBytes);
  const entries = new Map<string, TensorEntry>();
  const files = shards.map((shard, i) => {
    const name = shards.length === 1 ? singleFile : shardName(i + 1, shards.length);
    return planFile(name, shard, metadata, entries);
  });
  const bytes = sized.reduce((sum, tensor) => sum + tensor.bytes, 0);
  return { files, entries, bytes, shardBytes, index: files.length === 1 ? null : indexText(entries, bytes) };
}

type Sized = PlannedTensor & { bytes: number };

function sizeOf({ name, dtype, shape }: PlannedTensor): number {
  const bytes = tensorBytes(dtype, shape);
  if (bytes !== null) return bytes;
  throw lutraError('LUTRA_E_SHAPE', { message: `no number of bytes holds ${dtype} [${shape}]`, where: quoted(name) });
}

function cut(tensors: readonly Sized[], shardBytes: number): Sized[][] {
  const shards: Sized[][] = [[]];
  let filled = 0;
  for (const tensor of tensors) {
    if (filled > 0 && filled + tensor.bytes > shardBytes) {
      shards.push([]);
      filled = 0;
    }
    shards.at(-1)!.push(tensor);
    filled += tensor.bytes;
  }
  return shards;
}

/** Adds the shard's tensors to `entries`. */
function planFile(
  name: string,
  tensors: readonly Sized[],
  metadata: Readonly<Record<string, string>>,
  entries: Map<string, TensorEntry>,
): PlannedFile {
  const fields = [`"__metadata__":${JSON.stringify(metadata)}`];
  const begins: number[] = [];
  let at = 0;
  for (const { name: tensor, dtype, shape, bytes } of tensors) {
    fields.push(`${JSON.stringify(tensor)}:${JSON.stringify({ dtype, shape, data_offsets: [at, at + bytes] })}`);
    begins.push(at);
    at += bytes;
  }
  const json = Buffer.from(`{${fields.join(',')}}`);
  const dataBegin = Math.ceil((lengthBytes + json.length) / dataAlignment) * dataAlignment;
  const header = Buffer.alloc(dataBegin, ' ');
  header.writeBigUInt64LE(BigInt(dataBegin - lengthBytes));
  json.copy(header, lengthBytes);
  for (const [i, { name: tensor, dtype, shape, bytes }] of tensors.entries()) {
    if (entries.has(tensor))
      throw lutraError('LUTRA_E_OPTION', { message: 'two tensors have the same name', where: quoted(tensor) });
    const begin = dataBegin + begins[i]!;
    entries.set(tensor, { name: tensor, dtype, shape, file: name, begin, end: begin + bytes });
  }
  return { name, header, size: dataBegin + at };
}

const shardName = (number: number, count: number): string => `model-${digits(number)}-of-${digits(count)}.safetensors`;
const digits = (number: number): string => String(number).padStart(5, '0');

function indexText(entries: ReadonlyMap<string, TensorEntry>, bytes: number): string {
  const places = [...entries.values()].map(({ name, file }) => `    ${JSON.stringify(name)}: ${JSON.stringify(file)}`);
  return `{\n  "metadata": { "total_size": ${bytes} },\n  "weight_map": {\n${places.join(',\n')}\n  }\n}\n`;
}
