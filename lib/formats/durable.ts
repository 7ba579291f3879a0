import { open, rename } from 'node:fs/promises';
import { dirname } from 'node:path';
import { closeFile } from './open-file.js';
import { onFile } from './system-error.js';

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

/** Writes a file as a whole: whatever happens, `path` is the old one or the new one. On the disk when this ends. */
export async function replaceFile(path: string, text: string): Promise<void> {
  const next = `${path}.new`;
  await onFile(next, async () => {
    const handle = await open(next, 'w');
    try {
      await handle.writeFile(text);
      await handle.sync();
    } finally {
      await handle.close();
    }
    await rename(next, path);
  });
  await syncDirectory(dirname(path));
}
