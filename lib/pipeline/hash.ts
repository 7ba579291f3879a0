import { createHash } from 'node:crypto';
import { open } from 'node:fs/promises';
import { onFile } from '../formats/index.js';

/** Bytes that are read and hashed at a time: a millisecond of the JavaScript thread. */
const pieceBytes = 2 ** 20;

/** SHA-256 of a file in hexadecimal, read through one buffer. @throws `LUTRA_E_NOT_FOUND`, `LUTRA_E_IO` */
export async function hashFile(
  path: string,
  signal: AbortSignal | undefined,
  onBytes: (bytes: number) => void,
): Promise<string> {
  const file = await onFile(path, () => open(path));
  try {
    const hash = createHash('sha256');
    const piece = Buffer.allocUnsafe(pieceBytes);
    for (let position = 0; ; ) {
      signal?.throwIfAborted();
      const { bytesRead } = await onFile(path, () => file.read(piece, 0, pieceBytes, position));
      if (bytesRead === 0) return hash.digest('hex');
      hash.update(piece.subarray(0, bytesRead));
      position += bytesRead;
      onBytes(position);
    }
  } finally {
    await file.close();
  }
}
