import { createHash } from 'node:crypto';
import { open } from 'node:fs/promises';
import { join } from 'node:path';
import { lutraError } from '../../errors.js';
import { syncing } from '../durable.js';
import { closeFile, containedFile, openFile, readFully, requireUnchanged, writeFully } from '../open-file.js';
import { onFile } from '../system-error.js';

const copyBytes = 2 ** 20;

/**
 * Copies one file of the source, which must lie in it, and brings it to the disk. Modes are not copied.
 *
 * @param options.expected SHA-256 that it had when the job began
 * @throws `LUTRA_E_INPUT_CHANGED` where it has another by now; `LUTRA_E_TRUNCATED`, `LUTRA_E_IO`, `LUTRA_E_DISK_FULL`
 */
export async function copyDocument(
  from: string,
  to: string,
  name: string,
  { expected, signal }: { expected?: string | undefined; signal?: AbortSignal | undefined } = {},
): Promise<void> {
  const source = await openFile(await containedFile(from, name, from));
  const path = join(to, name);
  const hash = createHash('sha256');
  try {
    const copy = await onFile(path, () => open(path, 'wx'));
    try {
      const buffer = new Uint8Array(Math.min(copyBytes, source.size));
      for (let at = 0; at < source.size; at += buffer.length) {
        signal?.throwIfAborted();
        const piece = buffer.subarray(0, source.size - at);
        await readFully(source, piece, at);
        hash.update(piece);
        await writeFully(copy, piece, at, path);
      }
      await requireUnchanged(source);
      await onFile(path, () => syncing(signal, () => copy.sync()));
    } finally {
      await closeFile(copy);
    }
  } finally {
    await closeFile(source.handle);
  }
  const found = hash.digest('hex');
  if (expected !== undefined && found !== expected)
    throw lutraError('LUTRA_E_INPUT_CHANGED', {
      message: 'the file is not what it was when the job began',
      where: source.path,
      found,
      expected,
      hint: 'Bring the file back, or start the job afresh.',
    });
}
