import { createHash } from 'node:crypto';
import { closeFile, type OpenFile, openFile, requireUnchanged } from './open-file.js';
import { onFile } from './system-error.js';

/** Bytes that are read and hashed at a time: a millisecond of the JavaScript thread. */
const pieceBytes = 2 ** 20;

export interface HashOptions {
  signal?: AbortSignal | undefined;
  /** Called with the number of bytes that are hashed, piece after piece. */
  onBytes?: ((bytes: number) => void) | undefined;
  /** Bytes to read; all by default. */
  most?: number | undefined;
}

/**
 * SHA-256 of a regular file, or of its first `most` bytes, in hexadecimal, read through one buffer.
 *
 * @throws `LUTRA_E_NOT_FOUND`, `LUTRA_E_IO`, also where it was written to meanwhile; `LUTRA_E_TRUNCATED` where it became shorter
 */
export async function hashFile(path: string, options: HashOptions = {}): Promise<string> {
  const file = await openFile(path);
  try {
    return await hashOpenFile(file, options);
  } finally {
    await closeFile(file.handle);
  }
}

/** The same of a file that is open, whatever lies at its path by now. */
export async function hashOpenFile(
  file: OpenFile,
  { signal, onBytes, most = Number.POSITIVE_INFINITY }: HashOptions = {},
): Promise<string> {
  const hash = createHash('sha256');
  const piece = Buffer.allocUnsafe(pieceBytes);
  for (let position = 0; ; ) {
    signal?.throwIfAborted();
    const bytes = Math.min(pieceBytes, most - position);
    const { bytesRead } = await onFile(file.path, () => file.handle.read(piece, 0, bytes, position));
    if (bytesRead === 0) break;
    hash.update(piece.subarray(0, bytesRead));
    position += bytesRead;
    onBytes?.(position);
  }
  await requireUnchanged(file);
  return hash.digest('hex');
}
