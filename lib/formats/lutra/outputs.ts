import { join } from 'node:path';
import { hashFile } from '../hash-file.js';

/** What a finished checkpoint consists of, apart from the documents that tell of it. */
export interface Outputs {
  /** CRC-32C of every stored tensor's bytes, padding included: eight hexadecimal digits by name, in the order of the file. */
  tensors: Record<string, string>;
  /** SHA-256 by file name, sorted. */
  files: Record<string, string>;
}

/** Hashes the files as they lie in `directory`. @param checksums of all tensors */
export async function outputsOf(
  directory: string,
  files: readonly string[],
  checksums: Iterable<readonly [string, number]>,
  signal: AbortSignal | undefined,
): Promise<Outputs> {
  const hashes: Record<string, string> = {};
  for (const file of [...files].sort()) hashes[file] = await hashFile(join(directory, file), { signal });
  return {
    tensors: Object.fromEntries([...checksums].map(([name, sum]) => [name, checksumText(sum)])),
    files: hashes,
  };
}

/** A CRC-32C as the manifest has it. */
export const checksumText = (checksum: number): string => checksum.toString(16).padStart(8, '0');
