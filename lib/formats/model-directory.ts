import { lstat, readdir, readlink, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { LutraError, lutraError } from '../errors.js';
import { onFile } from './system-error.js';

/**
 * Refuses what is no directory, in words for who has named it.
 *
 * @param where the argument's name, for what is no path at all
 * @throws `LUTRA_E_OPTION` for what is no path, `LUTRA_E_NOT_FOUND`, `LUTRA_E_IO`
 */
export async function requireDirectory(directory: unknown, where = 'directory'): Promise<void> {
  if (typeof directory !== 'string' || directory === '')
    throw lutraError('LUTRA_E_OPTION', {
      message: 'the path of a directory is needed',
      where,
      found: directory === '' ? "''" : typeof directory,
    });
  try {
    if ((await onFile(directory, () => stat(directory))).isDirectory()) return;
  } catch (error) {
    if (!(error instanceof LutraError) || error.code !== 'LUTRA_E_NOT_FOUND') throw error;
    const target = await lstat(directory).then(
      (found) => (found.isSymbolicLink() ? readlink(directory).catch(() => undefined) : undefined),
      () => undefined,
    );
    throw lutraError('LUTRA_E_NOT_FOUND', {
      message: target === undefined ? 'there is no such directory' : 'the symbolic link leads nowhere',
      where: directory,
      found: target,
      cause: error,
    });
  }
  throw lutraError('LUTRA_E_NOT_FOUND', {
    message: 'this is a file: the directory of a model is needed',
    where: directory,
    hint: 'Name the directory that it lies in.',
  });
}

/** What to do where a directory is no checkpoint that lutra reads, by what lies in it. */
export async function checkpointHint(directory: string): Promise<string> {
  const names = await readdir(directory).catch((): string[] => []);
  const some = (pattern: RegExp) => names.some((name) => pattern.test(name));
  if (some(/\.gguf$/i))
    return 'GGUF files are not read: get the original model in safetensors, from which they were made.';
  if (some(/\.(bin|pt|pth|ckpt)$/i))
    return 'lutra reads no pickle files (.bin, .pt): save the model again with safe_serialization=True.';
  if (names.includes('snapshots'))
    return `This is a folder of the Hugging Face cache: name the snapshot in it, ${join(directory, 'snapshots')}/….`;
  return 'A model is a directory with config.json, tokenizer.json and its weights in safetensors files.';
}
