import { access, stat } from 'node:fs/promises';
import { totalmem } from 'node:os';
import { join } from 'node:path';
import { lutraError } from '../../errors.js';
import { addon, cancellable, taskIds } from '../../native/index.js';
import { Tensor } from '../../tensor/index.js';
import { bytesText } from '../bytes-text.js';
import { type HashOptions, hashOpenFile } from '../hash-file.js';
import { type ReadLimits, withDefaults } from '../limits.js';
import { checkpointHint } from '../model-directory.js';
import { closeFile, containedFile, type OpenFile, openFile, readFully, requireUnchanged } from '../open-file.js';
import { quoted } from '../strict-json.js';
import { onFile } from '../system-error.js';
import { nativeDtypes } from './dtypes.js';
import { headerLength, lengthBytes, parseHeader, type TensorEntry } from './header.js';
import { indexFile, singleFile } from './names.js';
import { readShardIndex } from './shard-index.js';

const chunkBytes = 2 ** 22;

/** The tensors of one safetensors file or of the shards of a checkpoint. Headers are read and checked when it opens. */
export class SafetensorsReader {
  readonly #files: ReadonlyMap<string, OpenFile>;
  readonly #running = new Set<Promise<unknown>>();
  /** As many as `bytes` ran side by side. */
  readonly #spareBuffers: Uint8Array[] = [];
  #closed = false;

  /** Made by `openSafetensors`. */
  constructor(
    files: ReadonlyMap<string, OpenFile>,
    /** Every tensor by its name; a shard's tensors in the order of their data. */
    readonly entries: ReadonlyMap<string, TensorEntry>,
    /** `__metadata__` of all files; where files disagree, the first one's. */
    readonly metadata: ReadonlyMap<string, string>,
  ) {
    this.#files = files;
  }

  /** @throws `LUTRA_E_NOT_FOUND` */
  entry(name: string): TensorEntry {
    const entry = this.entries.get(name);
    if (entry) return entry;
    throw lutraError('LUTRA_E_NOT_FOUND', {
      message: 'the checkpoint has no such tensor',
      where: [...this.#files.keys()].slice(0, 1).join(),
      found: quoted(name),
    });
  }

  /**
   * Reads a tensor into native memory, in its stored dtype and shape (a scalar as [1]).
   *
   * @throws `LUTRA_E_NOT_FOUND`, `LUTRA_E_DTYPE` for types that lutra does not compute with, `LUTRA_E_TRUNCATED` where the
   *   file lost bytes since it was opened, `LUTRA_E_IO` where it was written to, `LUTRA_E_MEMORY`, `LUTRA_E_DISPOSED` after
   *   `close`
   */
  async load(name: string, options: { signal?: AbortSignal | undefined } = {}): Promise<Tensor> {
    const entry = this.entry(name);
    const where = `${entry.file}, tensor ${quoted(name)}`;
    const dtype = nativeDtypes[entry.dtype];
    if (!dtype)
      throw lutraError('LUTRA_E_DTYPE', {
        message: 'lutra does not compute with this element type',
        where,
        found: entry.dtype,
        expected: Object.keys(nativeDtypes).join(', '),
      });
    return this.#using(entry, async (file) => {
      options.signal?.throwIfAborted();
      const bytes = entry.end - entry.begin;
      requireMemory(bytes, where);
      await requireUnchanged(file, where);
      const tensor = Tensor.zeros(dtype, entry.shape.length ? entry.shape : [1]);
      try {
        const numbers = [file.handle.fd, entry.begin, 0, bytes];
        if (bytes > 0)
          await cancellable(
            options.signal,
            (cancel) => addon().task(taskIds.readFile, [tensor.native], numbers, 0, cancel),
            where,
          );
        await requireUnchanged(file, where);
        return tensor;
      } catch (error) {
        tensor.dispose();
        throw error;
      }
    });
  }

  /** The bytes of a tensor, piece after piece, whatever its type. A piece is overwritten when the next one is asked for. */
  async *bytes(name: string): AsyncGenerator<Uint8Array> {
    const entry = this.entry(name);
    const buffer = this.#spareBuffers.pop() ?? new Uint8Array(chunkBytes);
    try {
      for (let at = entry.begin; at < entry.end; at += buffer.length) {
        const piece = buffer.subarray(0, Math.min(buffer.length, entry.end - at));
        await this.#using(entry, (file) => readFully(file, piece, at));
        yield piece;
      }
      await this.#using(entry, (file) => requireUnchanged(file));
    } finally {
      this.#spareBuffers.push(buffer);
    }
  }

  /** Paths of the files. */
  get files(): ReadonlySet<string> {
    return new Set(this.#files.keys());
  }

  /** SHA-256 of a file as it was opened, whatever lies at its path by now. @throws `LUTRA_E_TRUNCATED`, `LUTRA_E_IO` */
  hash(file: string, options: HashOptions = {}): Promise<string> {
    return this.#using({ file }, (open) => hashOpenFile(open, options));
  }

  /** Closes the files when running loads have ended. Idempotent. */
  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    // A descriptor must not be closed, and then given to another file, under a read.
    await Promise.allSettled(this.#running);
    await closeAll(this.#files);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  async #using<T>(entry: Pick<TensorEntry, 'file'>, work: (file: OpenFile) => Promise<T>): Promise<T> {
    const file = this.#files.get(entry.file);
    if (this.#closed || !file)
      throw lutraError('LUTRA_E_DISPOSED', { message: 'the checkpoint was closed', where: entry.file });
    const running = work(file);
    this.#running.add(running);
    try {
      return await running;
    } finally {
      this.#running.delete(running);
    }
  }
}

/**
 * Opens `path`: a safetensors file, or a directory with `model.safetensors` or shards and their index. Only headers are
 * read; no size that a header declares is believed before the file was asked for its own.
 *
 * @throws `LUTRA_E_NOT_FOUND`, `LUTRA_E_HEADER`, `LUTRA_E_DTYPE`, `LUTRA_E_OFFSETS`, `LUTRA_E_TRUNCATED`, `LUTRA_E_IO`
 */
export async function openSafetensors(path: string, limits?: Partial<ReadLimits>): Promise<SafetensorsReader> {
  const checked = withDefaults(limits);
  const files = new Map<string, OpenFile>();
  try {
    const directory = (await onFile(path, () => stat(path))).isDirectory();
    return directory ? await openDirectory(path, files, checked) : await openFiles([path], files, checked);
  } catch (error) {
    await closeAll(files);
    throw error;
  }
}

async function openDirectory(path: string, files: Map<string, OpenFile>, limits: ReadLimits) {
  if (await exists(join(path, singleFile)))
    return openFiles([await containedFile(path, singleFile, path)], files, limits);
  if (!(await exists(join(path, indexFile))))
    throw lutraError('LUTRA_E_NOT_FOUND', {
      message: 'the directory holds no safetensors checkpoint',
      where: path,
      expected: `${singleFile} or ${indexFile}`,
      hint: await checkpointHint(path),
    });
  const indexPath = await containedFile(path, indexFile, path);
  const { shardOf, shards } = await readShardIndex(indexPath, limits);
  const paths: string[] = [];
  for (const shard of shards) paths.push(await containedFile(path, shard, indexPath));
  const reader = await openFiles(paths, files, limits);
  checkIndex(reader.entries, shardOf, path, indexPath);
  return reader;
}

async function openFiles(paths: readonly string[], files: Map<string, OpenFile>, limits: ReadLimits) {
  const entries = new Map<string, TensorEntry>();
  const metadata = new Map<string, string>();
  for (const path of paths) {
    const file = await openFile(path);
    files.set(path, file);
    const header = await readHeader(file, { ...limits, tensors: limits.tensors - entries.size });
    for (const entry of header.entries) {
      const other = entries.get(entry.name);
      if (other)
        throw lutraError('LUTRA_E_HEADER', {
          message: `another file holds the tensor ${quoted(entry.name)} too`,
          where: path,
          found: other.file,
        });
      entries.set(entry.name, entry);
    }
    for (const [key, value] of header.metadata) if (!metadata.has(key)) metadata.set(key, value);
  }
  return new SafetensorsReader(files, entries, metadata);
}

async function readHeader(file: OpenFile, limits: ReadLimits) {
  const prefix = new Uint8Array(Math.min(lengthBytes, file.size));
  await readFully(file, prefix, 0);
  const bytes = new Uint8Array(headerLength(prefix, file.path, file.size, limits));
  await readFully(file, bytes, lengthBytes);
  await requireUnchanged(file);
  return parseHeader(bytes, file.path, file.size, limits);
}

/** The index and the shards must name the same tensors in the same places. */
function checkIndex(
  entries: ReadonlyMap<string, TensorEntry>,
  shardOf: ReadonlyMap<string, string>,
  directory: string,
  indexPath: string,
): void {
  for (const [name, shard] of shardOf) {
    const file = entries.get(name)?.file;
    if (file === join(directory, shard)) continue;
    throw lutraError('LUTRA_E_NOT_FOUND', {
      message: `${quoted(shard)} does not hold the tensor ${quoted(name)} that the index places there`,
      where: indexPath,
      found: file ?? 'in no file',
    });
  }
  for (const { name, file } of entries.values())
    if (!shardOf.has(name))
      throw lutraError('LUTRA_E_HEADER', {
        message: `the index does not name the tensor ${quoted(name)}`,
        where: file,
      });
}

/** A sparse file can hold a tensor of terabytes; the allocation would succeed and the process die of it later. */
function requireMemory(bytes: number, where: string): void {
  const most = Math.min(totalmem(), process.constrainedMemory() || Number.POSITIVE_INFINITY);
  if (bytes > most)
    throw lutraError('LUTRA_E_MEMORY', {
      message: 'the tensor is larger than the memory of this machine',
      where,
      found: bytesText(bytes),
      expected: `at most ${bytesText(most)}`,
    });
}

async function closeAll(files: ReadonlyMap<string, OpenFile>): Promise<void> {
  for (const { handle } of files.values()) await closeFile(handle);
}

const exists = (path: string): Promise<boolean> =>
  access(path).then(
    () => true,
    () => false,
  );
