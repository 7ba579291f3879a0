import { access, constants, lstat, readdir, realpath, stat, statfs } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { LutraError, lutraError } from '../../errors.js';
import { bytesText } from '../bytes-text.js';
import { readOwnJson } from '../json-file.js';
import type { JsonObject } from '../strict-json.js';
import { onFile } from '../system-error.js';

/** Compares by device and inode: the same directory has many paths. @throws `LUTRA_E_SAME_PATH` where `out` is the source or holds it */
export async function requireOther(out: string, source: string): Promise<void> {
  const target = await unlessMissing(out, () => stat(out, { bigint: true }));
  if (!target) return;
  let inner = await onFile(source, () => realpath(source));
  for (;;) {
    const { dev, ino } = await onFile(inner, () => stat(inner, { bigint: true }));
    if (dev === target.dev && ino === target.ino)
      throw lutraError('LUTRA_E_SAME_PATH', {
        message: 'the output is the input, or holds it',
        where: out,
        found: source,
        hint: 'Choose another output directory.',
      });
    if (dirname(inner) === inner) return;
    inner = dirname(inner);
  }
}

/** @throws `LUTRA_E_EXISTS` where `out` is there and may not, or must never, be replaced */
export async function requireReplaceable(out: string, overwrite: boolean): Promise<void> {
  if (!(await exists(out))) return;
  if (!overwrite)
    throw lutraError('LUTRA_E_EXISTS', {
      message: 'the output exists already',
      where: out,
      hint: 'Choose another directory, or allow to overwrite it: `overwrite`, or --overwrite on the command line.',
    });
  const empty = await readdir(out).then(
    (names) => names.length === 0,
    () => false,
  );
  if (!empty && !(await isLutraCheckpoint(out)))
    throw lutraError('LUTRA_E_EXISTS', {
      message: 'the output exists and is no lutra checkpoint: it will not be overwritten',
      where: out,
      hint: 'Remove it yourself, or choose another directory.',
    });
}

async function isLutraCheckpoint(directory: string): Promise<boolean> {
  try {
    const { quantization_config: quantization } = await readOwnJson(join(directory, 'config.json'));
    return (quantization as JsonObject | undefined)?.quant_method === 'lutra';
  } catch {
    return false;
  }
}

/** File systems that show the kernel's own objects: magic numbers of `statfs`. */
const ofKernel: ReadonlySet<number> = new Set([
  0x9fa0, 0x62656572, 0x1cd1, 0x27e0eb, 0x63677270, 0x64626720, 0x74726163, 0x73636673, 0xcafe4a11, 0x65735543,
]);

/** @throws `LUTRA_E_IO` where no directory can be made in `directory` */
export async function requireWritable(directory: string): Promise<void> {
  const { type } = await onFile(directory, () => statfs(directory));
  if (process.platform === 'linux' && ofKernel.has(type))
    throw lutraError('LUTRA_E_IO', { message: 'the kernel keeps no files of others here', where: directory, hint });
  try {
    await onFile(directory, () => access(directory, constants.W_OK | constants.X_OK));
  } catch (error) {
    throw error instanceof LutraError ? error.withHint(hint) : error;
  }
}

const hint = 'Choose another output directory.';

/** The directory that there is already, of those in which `path` will lie. @throws `LUTRA_E_EXISTS` where that is a file */
export async function nearestDirectory(path: string): Promise<string> {
  for (let at = path; ; at = dirname(at)) {
    const found = dirname(at) === at ? await onFile(at, () => stat(at)) : await unlessMissing(at, () => stat(at));
    if (found?.isDirectory()) return at;
    if (found) throw lutraError('LUTRA_E_EXISTS', { message: 'the output lies below a file', where: at });
  }
}

/**
 * @returns the bytes that are free; null where the file system does not tell, as some network file systems
 * @throws `LUTRA_E_DISK_FULL` where they are fewer than `bytes`
 */
export async function requireSpace(directory: string, bytes: number): Promise<number | null> {
  const { bavail, bsize, blocks } = await onFile(directory, () => statfs(directory));
  if (blocks === 0) return null;
  if (bavail * bsize < bytes)
    throw lutraError('LUTRA_E_DISK_FULL', {
      message: 'the output will not fit on the disk',
      where: directory,
      found: `${bytesText(bavail * bsize)} free`,
      expected: bytesText(bytes),
      hint: 'Make room, or choose another output directory.',
    });
  return bavail * bsize;
}

/** Whether there is something at `path`. @throws `LUTRA_E_IO` where that cannot be told: what seems gone may be removed */
export async function exists(path: string): Promise<boolean> {
  return (await unlessMissing(path, () => lstat(path))) !== null;
}

/** Null where there is nothing at `path`; every other error of the file system is one. */
async function unlessMissing<T>(path: string, look: () => Promise<T>): Promise<T | null> {
  try {
    return await onFile(path, look);
  } catch (error) {
    if (error instanceof LutraError && error.code === 'LUTRA_E_NOT_FOUND') return null;
    throw error;
  }
}
