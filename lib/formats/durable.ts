import { lstat, open, rename, rm } from 'node:fs/promises';
import { dirname } from 'node:path';
import { lutraError } from '../errors.js';
import { closeFile } from './open-file.js';
import { onFile } from './system-error.js';

/** How many pieces of work sync files under a signal; every job has a signal of its own. */
const underWay = new WeakMap<AbortSignal, number>();

/**
 * Runs work that brings files to the disk. The system takes seconds for a large file and cannot be told to stop: an abort is
 * heard before the work, not in it, and `isSyncing` tells whoever has to answer one meanwhile.
 */
export async function syncing<T>(signal: AbortSignal | undefined, work: () => Promise<T>): Promise<T> {
  if (!signal) return await work();
  signal.throwIfAborted();
  const count = (change: 1 | -1) => underWay.set(signal, (underWay.get(signal) ?? 0) + change);
  count(1);
  try {
    return await work();
  } finally {
    count(-1);
  }
}

/** Whether work under this signal is in a sync. */
export const isSyncing = (signal: AbortSignal): boolean => (underWay.get(signal) ?? 0) > 0;

/** Brings a directory's names to the disk. */
export async function syncDirectory(path: string): Promise<void> {
  // Windows cannot sync directories and does not need it.
  if (process.platform === 'win32') return;
  const handle = await onFile(path, () => open(path, 'r'));
  try {
    await onFile(path, () => handle.sync());
  } finally {
    await closeFile(handle);
  }
}

/**
 * Refuses what a renaming would replace and not write to: a device, a pipe, a directory, a link.
 *
 * @throws `LUTRA_E_EXISTS`, `LUTRA_E_IO`
 */
export async function requireRegularFile(path: string): Promise<void> {
  const found = await onFile(path, () =>
    lstat(path).catch((error: NodeJS.ErrnoException) => {
      if (error.code === 'ENOENT') return null;
      throw error;
    }),
  );
  if (found && !found.isFile())
    throw lutraError('LUTRA_E_EXISTS', {
      message: 'what lies there is no regular file, and is not replaced by one',
      where: path,
      hint: 'Choose another file.',
    });
}

/**
 * Writes a file as a whole: whatever happens, `path` is the old one or the new one. On the disk when this ends; a failure
 * leaves nothing besides.
 *
 * @throws `LUTRA_E_EXISTS` where something else than a regular file lies there; `LUTRA_E_DISK_FULL`, `LUTRA_E_IO`
 */
export async function replaceFile(path: string, text: string): Promise<void> {
  await requireRegularFile(path);
  const next = `${path}.new`;
  await onFile(next, async () => {
    const handle = await open(next, 'w');
    try {
      try {
        await handle.writeFile(text);
        await handle.sync();
      } finally {
        await handle.close();
      }
      await rename(next, path);
    } catch (error) {
      await rm(next, { force: true }).catch(() => {});
      throw error;
    }
  });
  await syncDirectory(dirname(path));
}
