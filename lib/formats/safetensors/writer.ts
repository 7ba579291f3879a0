import { type FileHandle, open, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { lutraError } from '../../errors.js';
import { addon, cancellable, taskIds } from '../../native/index.js';
import { Tensor } from '../../tensor/index.js';
import { syncing } from '../durable.js';
import { closeFile, readFully, writeFully } from '../open-file.js';
import { quoted } from '../strict-json.js';
import { onFile } from '../system-error.js';
import { crc32c } from './checksum.js';
import { storedDtypes } from './dtypes.js';
import type { TensorEntry } from './header.js';
import { indexFile } from './names.js';
import type { SafetensorsPlan } from './plan.js';
import type { SafetensorsReader } from './reader.js';

interface WriteOptions {
  signal?: AbortSignal | undefined;
}

/**
 * Writes the files of a plan, tensor by tensor in any order, each at its planned place: no more than one piece of a tensor
 * is in memory. `close` ends a complete file set; after any failure `abandon` lets go of the files as they are.
 */
export class SafetensorsWriter {
  readonly #handles: ReadonlyMap<string, FileHandle>;
  readonly #missing: Set<string>;
  /** Files with bytes that may not be on the disk. */
  readonly #unsynced = new Set<string>();
  /** CRC-32C of the bytes that are stored for every tensor written so far, padding included. */
  readonly checksums = new Map<string, number>();

  private constructor(
    readonly directory: string,
    readonly plan: SafetensorsPlan,
    handles: ReadonlyMap<string, FileHandle>,
  ) {
    this.#handles = handles;
    this.#missing = new Set(plan.entries.keys());
  }

  /** Makes the plan's files in `directory`, which must not hold them yet. @throws `LUTRA_E_EXISTS`, `LUTRA_E_DISK_FULL`, `LUTRA_E_IO` */
  static async create(directory: string, plan: SafetensorsPlan): Promise<SafetensorsWriter> {
    const handles = new Map<string, FileHandle>();
    const writer = new SafetensorsWriter(directory, plan, handles);
    try {
      for (const { name, header } of plan.files) {
        const path = join(directory, name);
        const handle = await onFile(path, () => open(path, 'wx'));
        handles.set(name, handle);
        writer.#unsynced.add(name);
        await writeFully(handle, header, 0, path);
      }
      return writer;
    } catch (error) {
      await writer.abandon();
      throw error;
    }
  }

  /**
   * Goes on with the plan's files as an earlier writer left them.
   *
   * @param written checksums of the tensors that are whole: those are read again, and must be what was written
   * @throws `LUTRA_E_NOT_FOUND`, `LUTRA_E_TRUNCATED`, `LUTRA_E_HEADER`, `LUTRA_E_INPUT_CHANGED` where a file, its header or one of
   *   those tensors is not what was written; `LUTRA_E_IO`
   */
  static async resume(
    directory: string,
    plan: SafetensorsPlan,
    written: ReadonlyMap<string, number>,
    options: WriteOptions = {},
  ): Promise<SafetensorsWriter> {
    const handles = new Map<string, FileHandle>();
    const writer = new SafetensorsWriter(directory, plan, handles);
    try {
      for (const { name, header } of plan.files) {
        const path = join(directory, name);
        const handle = await onFile(path, () => open(path, 'r+'));
        handles.set(name, handle);
        await requireHeader(handle, header, path);
      }
      for (const [name, expected] of written) await writer.#require(name, expected, options);
      return writer;
    } catch (error) {
      await writer.abandon();
      throw error;
    }
  }

  /**
   * Writes a tensor of the planned dtype and size. With `zeroTail` it may be smaller than planned; zeros fill the rest.
   *
   * @throws `LUTRA_E_NOT_FOUND`, `LUTRA_E_DTYPE`, `LUTRA_E_SHAPE` where it is not the planned one; `LUTRA_E_DISK_FULL`, `LUTRA_E_IO`
   */
  async write(name: string, tensor: Tensor, options: WriteOptions & { zeroTail?: boolean } = {}): Promise<void> {
    const { entry, handle, path } = this.#place(name);
    const { byteLength } = tensor;
    requireDtype(entry, storedDtypes[tensor.dtype]);
    requireBytes(entry, byteLength, options.zeroTail === true);
    const sum = await this.#transfer(tensor, handle, entry, options.signal);
    const tail = new Uint8Array(entry.end - entry.begin - byteLength);
    // Almost every tensor is as large as planned.
    if (tail.length === 0) return this.#written(name, sum);
    await writeFully(handle, tail, entry.begin + byteLength, path);
    this.#written(name, await crc32c(tail, sum, options));
  }

  /** Copies a tensor byte for byte out of `reader`, where it is called `from`. Same errors as `write`, and the reader's. */
  async copy(name: string, reader: SafetensorsReader, options: WriteOptions & { from?: string } = {}): Promise<void> {
    const { entry, handle, path } = this.#place(name);
    const from = options.from ?? name;
    const source = reader.entry(from);
    requireDtype(entry, source.dtype);
    requireBytes(entry, source.end - source.begin, false);
    let at = entry.begin;
    let sum = 0;
    for await (const piece of reader.bytes(from)) {
      options.signal?.throwIfAborted();
      await writeFully(handle, piece, at, path);
      at += piece.length;
      sum = await crc32c(piece, sum, options);
    }
    this.#written(name, sum);
  }

  /** Brings what was written so far to the disk. @throws `LUTRA_E_DISK_FULL`, `LUTRA_E_IO` */
  async sync({ signal }: WriteOptions = {}): Promise<void> {
    for (const name of [...this.#unsynced]) {
      await onFile(join(this.directory, name), () => syncing(signal, () => this.#handles.get(name)!.sync()));
      this.#unsynced.delete(name);
    }
  }

  /** Writes the index, brings everything to the disk and closes. @throws `LUTRA_E_INTERNAL` where a tensor was never written */
  async close({ signal }: WriteOptions = {}): Promise<void> {
    const [missing] = this.#missing;
    if (missing !== undefined)
      throw lutraError('LUTRA_E_INTERNAL', { message: 'a planned tensor was not written', where: quoted(missing) });
    for (const [name, handle] of this.#handles)
      await onFile(join(this.directory, name), async () => {
        await syncing(signal, () => handle.sync());
        await closeFile(handle);
      });
    const { index } = this.plan;
    const path = join(this.directory, indexFile);
    if (index !== null)
      await onFile(path, () => syncing(signal, () => writeFile(path, index, { flag: 'wx', flush: true })));
  }

  /** Closes the files, whole or not. Idempotent. */
  async abandon(): Promise<void> {
    for (const handle of this.#handles.values()) await closeFile(handle);
  }

  #written(name: string, checksum: number): void {
    this.checksums.set(name, checksum);
    this.#missing.delete(name);
  }

  /** @returns the checksum of the tensor's bytes */
  async #transfer(
    tensor: Tensor,
    { fd }: FileHandle,
    entry: TensorEntry,
    signal: AbortSignal | undefined,
  ): Promise<number> {
    if (tensor.byteLength === 0) return 0;
    // A caller's array could be detached while the transfer runs.
    const owned = tensor.borrowed ? Tensor.copyOf(tensor.read(), tensor.shape, tensor.dtype) : tensor;
    const numbers = [fd, entry.begin, 0, tensor.byteLength];
    try {
      await cancellable(
        signal,
        (cancel) => addon().task(taskIds.writeFile, [owned.native], numbers, 0, cancel),
        `${join(this.directory, entry.file)}, tensor ${quoted(entry.name)}`,
      );
      return await crc32c(owned, 0, { signal });
    } finally {
      if (owned !== tensor) owned.dispose();
    }
  }

  #place(name: string): { entry: TensorEntry; handle: FileHandle; path: string } {
    const entry = this.plan.entries.get(name);
    const handle = entry && this.#handles.get(entry.file);
    if (!entry || !handle)
      throw lutraError('LUTRA_E_NOT_FOUND', { message: 'no such tensor was planned', where: quoted(name) });
    this.#unsynced.add(entry.file);
    return { entry, handle, path: join(this.directory, entry.file) };
  }

  /** Reads a tensor of an earlier writer again. */
  async #require(name: string, expected: number, { signal }: WriteOptions): Promise<void> {
    const { entry, handle, path } = this.#place(name);
    const piece = new Uint8Array(Math.min(readBytes, entry.end - entry.begin));
    let found = 0;
    for (let at = entry.begin; at < entry.end; at += piece.length) {
      signal?.throwIfAborted();
      const part = piece.subarray(0, Math.min(piece.length, entry.end - at));
      await readFully({ path, handle }, part, at);
      found = await crc32c(part, found, { signal });
    }
    if (found !== expected)
      throw lutraError('LUTRA_E_INPUT_CHANGED', {
        message: 'the bytes are not those that were written',
        where: `${path}, tensor ${quoted(name)}`,
        found: `CRC-32C ${found}`,
        expected: `${expected}`,
      });
    this.#written(name, found);
  }
}

const readBytes = 2 ** 20;

async function requireHeader(handle: FileHandle, header: Uint8Array, path: string): Promise<void> {
  const found = new Uint8Array(header.length);
  await readFully({ path, handle }, found, 0);
  if (Buffer.compare(found, header) !== 0)
    throw lutraError('LUTRA_E_HEADER', { message: 'the header is not the planned one', where: path });
}

function requireDtype(entry: TensorEntry, found: string): void {
  if (found !== entry.dtype)
    throw lutraError('LUTRA_E_DTYPE', {
      message: 'another element type was planned',
      where: quoted(entry.name),
      found,
      expected: entry.dtype,
    });
}

function requireBytes(entry: TensorEntry, found: number, orFewer: boolean): void {
  const expected = entry.end - entry.begin;
  if (found !== expected && !(orFewer && found < expected))
    throw lutraError('LUTRA_E_SHAPE', {
      message: 'another size was planned',
      where: quoted(entry.name),
      found: `${found} bytes`,
      expected: `${expected} bytes`,
    });
}
