import { createReadStream } from 'node:fs';
import { type FileHandle, lstat, open, readlink, realpath, stat } from 'node:fs/promises';
import { basename, dirname, join, sep } from 'node:path';
import { type LutraError, lutraError } from '../errors.js';
import { quoted } from './strict-json.js';
import { onFile } from './system-error.js';

/** A regular file opened for reading, with the size and the time of the last change that it had then. */
export interface OpenFile {
  path: string;
  handle: FileHandle;
  size: number;
  changed: bigint;
}

/** Opens a regular file. @throws `LUTRA_E_NOT_FOUND`, `LUTRA_E_IO` (also for pipes, devices and directories) */
export async function openFile(path: string): Promise<OpenFile> {
  return onFile(path, async () => {
    // Looked at before it is opened: opening a pipe would wait for its writer.
    requireRegular((await stat(path)).isFile(), path);
    const handle = await open(path, 'r');
    try {
      const status = await handle.stat({ bigint: true });
      requireRegular(status.isFile(), path);
      return { path, handle, size: Number(status.size), changed: status.mtimeNs };
    } catch (error) {
      await closeFile(handle);
      throw error;
    }
  });
}

/**
 * Asks the file whether it still is what was opened. Asked after a read, it tells that the bytes are those of one state.
 *
 * @throws `LUTRA_E_TRUNCATED` where it is shorter, `LUTRA_E_IO` where it was written to
 */
export async function requireUnchanged(file: OpenFile, where = file.path): Promise<void> {
  const { size, mtimeNs } = await onFile(file.path, () => file.handle.stat({ bigint: true }));
  if (size < BigInt(file.size)) throw truncated(where, Number(size), file.size);
  if (size !== BigInt(file.size) || mtimeNs !== file.changed)
    throw lutraError('LUTRA_E_IO', {
      message: 'the file was written to while it was read',
      where,
      found: `${size} bytes`,
      expected: `${file.size} bytes, as when it was opened`,
      hint: 'Start again when nobody changes the file.',
    });
}

/**
 * Closes a file that was only read, or synced before. What the system says of that changes nothing: an error of a write comes
 * with its sync.
 */
export async function closeFile(handle: FileHandle): Promise<void> {
  await handle.close().catch(() => {});
}

/** Fills `target` from `position` on. @throws `LUTRA_E_TRUNCATED` where the file ends before */
export async function readFully(
  file: Pick<OpenFile, 'path' | 'handle'>,
  target: Uint8Array,
  position: number,
): Promise<void> {
  let done = 0;
  while (done < target.length) {
    const left = target.length - done;
    const { bytesRead } = await onFile(file.path, () => file.handle.read(target, done, left, position + done));
    if (bytesRead === 0) throw truncated(file.path, position + done, position + target.length);
    done += bytesRead;
  }
}

/** Writes all of `bytes` from `position` on. @throws `LUTRA_E_DISK_FULL`, `LUTRA_E_IO` */
export async function writeFully(handle: FileHandle, bytes: Uint8Array, position: number, path: string): Promise<void> {
  let done = 0;
  while (done < bytes.length) {
    const { bytesWritten } = await onFile(path, () => handle.write(bytes, done, bytes.length - done, position + done));
    done += bytesWritten;
  }
}

/**
 * All bytes of a file or a pipe of the caller's own. Node's `readFile` takes a read that moves fewer bytes than were asked for,
 * as network file systems have them, for the end of the file; a stream goes on to where nothing more comes.
 */
export async function readToEnd(path: string): Promise<Buffer> {
  const pieces: Buffer[] = [];
  for await (const piece of createReadStream(path, { highWaterMark: 2 ** 20 })) pieces.push(piece as Buffer);
  return Buffer.concat(pieces);
}

/** Bytes of a regular file. @throws as `openFile` */
export async function regularFileBytes(path: string): Promise<number> {
  const { size } = await onFile(path, async () => {
    const found = await stat(path);
    requireRegular(found.isFile(), path);
    return found;
  });
  return size;
}

/**
 * The whole content of a regular file, piece by piece, so that an abort is heard.
 *
 * @param check throws for a size that is not to be read
 * @throws as `openFile`, `LUTRA_E_TRUNCATED` and `LUTRA_E_IO` where the file changes meanwhile
 */
export async function readWholeFile(
  path: string,
  check: (size: number) => void,
  signal?: AbortSignal,
): Promise<Uint8Array> {
  const file = await openFile(path);
  try {
    check(file.size);
    const bytes = new Uint8Array(file.size);
    for (let at = 0; at < bytes.length; at += pieceBytes) {
      signal?.throwIfAborted();
      await readFully(file, bytes.subarray(at, at + pieceBytes), at);
    }
    await requireUnchanged(file);
    return bytes;
  } finally {
    await closeFile(file.handle);
  }
}

const pieceBytes = 2 ** 22;

/** The whole content of a small file. @throws `LUTRA_E_HEADER` where it is larger than `limit` bytes */
export async function readSmallFile(path: string, limit: number): Promise<Uint8Array> {
  return await readWholeFile(path, (size) => {
    if (size > limit)
      throw lutraError('LUTRA_E_HEADER', {
        message: 'the file is larger than it may be',
        where: path,
        found: `${size} bytes`,
        expected: `at most ${limit}`,
      });
  });
}

/**
 * The path of the file `name` of a checkpoint directory: a plain name whose file, symbolic links followed, lies in the
 * directory. A snapshot of the Hugging Face cache keeps its files in the repository's `blobs` folder, which is accepted.
 *
 * @throws `LUTRA_E_HEADER` where the name or the link leads elsewhere, `LUTRA_E_NOT_FOUND`
 */
export async function containedFile(directory: string, name: string, where: string): Promise<string> {
  const plain = name !== '' && name !== '.' && name !== '..' && !/[/\\\0]/.test(name) && basename(name) === name;
  if (!plain)
    throw lutraError('LUTRA_E_HEADER', {
      message: 'a file of the checkpoint is named by a path',
      where,
      found: quoted(name),
      expected: 'a plain file name',
    });
  const path = join(directory, name);
  const target = await onFile(path, () => realpath(path)).catch(async (error: unknown) => {
    const found = await lstat(path).catch(() => null);
    if (!found?.isSymbolicLink() || (error as LutraError).code !== 'LUTRA_E_NOT_FOUND') throw error;
    throw lutraError('LUTRA_E_NOT_FOUND', {
      message: 'the link leads nowhere',
      where: path,
      found: quoted(await readlink(path)),
      cause: error,
    });
  });
  const root = await onFile(directory, () => realpath(directory));
  const roots = basename(dirname(root)) === 'snapshots' ? [root, join(dirname(dirname(root)), 'blobs')] : [root];
  if (!roots.some((allowed) => target.startsWith(allowed + sep)))
    throw lutraError('LUTRA_E_HEADER', {
      message: 'a file of the checkpoint is a link that leads out of its directory',
      where: path,
      found: quoted(target),
    });
  return path;
}

export function truncated(path: string, found: number, expected: number) {
  return lutraError('LUTRA_E_TRUNCATED', {
    message: 'the file ends too early',
    where: path,
    found: `${found} bytes`,
    expected: `${expected} bytes`,
    hint: 'Fetch or write the file again.',
  });
}

function requireRegular(regular: boolean, path: string): void {
  if (!regular) throw lutraError('LUTRA_E_IO', { message: 'not a regular file', where: path });
}
