import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmdirSync, statfsSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe } from 'vitest';

export interface SmallDisk {
  path: string;
  /** Leaves this many bytes free, by a file called `filler`. */
  fillUpTo(free: number): void;
  unmount(): void;
}

/** A file system of its own in memory, to fill up; null where this process may not mount one. */
export function mountSmallDisk(bytes: number): SmallDisk | null {
  const path = mkdtempSync(join(tmpdir(), 'lutra-disk-'));
  try {
    execFileSync('mount', ['-t', 'tmpfs', '-o', `size=${bytes}`, 'tmpfs', path], { stdio: 'ignore' });
  } catch {
    rmdirSync(path);
    return null;
  }
  return {
    path,
    fillUpTo: (free) => {
      const { bavail, bsize } = statfsSync(path);
      writeFileSync(join(path, 'filler'), Buffer.alloc(Math.max(0, bavail * bsize - free)));
    },
    unmount: () => {
      execFileSync('umount', [path]);
      rmdirSync(path);
    },
  };
}

/** A suite on small disks: skipped, and saying so, where they cannot be mounted. */
export function describeWithSmallDisk(name: string, suite: () => void): void {
  const disk = mountSmallDisk(2 ** 16);
  disk?.unmount();
  if (disk) describe(name, suite);
  else describe.skip(`${name} (skipped: mounting a small file system needs root)`, suite);
}
