import { createHash } from 'node:crypto';
import { closeFile, openFile } from './open-file.js';
import { onFile } from './system-error.js';

/** Bytes that are read and hashed at a time: a millisecond of the JavaScript thread. */
const pieceBytes = 2 ** 20;

/**
 * SHA-256 of a regular file, or of its first `most` bytes, in hexadecimal, read through one buffer.
 *
 * @throws `LUTRA_E_NOT_FOUND`, `LUTRA_E_IO`
 */
export async function hashFile(
  path: string,
  signal: AbortSignal | undefined,
  onBytes: (bytes: number) => void = () => {},
  most = Number.POSITIVE_INFINITY,
): Promise<string> {
  const { handle } = await openFile(path);
  try {
    const hash = createHash('sha256');
    const piece = Buffer.allocUnsafe(pieceBytes);
    for (let position = 0; ; ) {
      signal?.throwIfAborted();
      const bytes = Math.min(pieceBytes, most - position);
      const { bytesRead } = await onFile(path, () => handle.read(piece, 0, bytes, position));
      if (bytesRead === 0) return hash.digest('hex');
      hash.update(piece.subarray(0, bytesRead));
      position += bytesRead;
      onBytes(position);
    }
  } finally {
    await closeFile(handle);
  }
}
