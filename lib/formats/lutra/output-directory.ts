import { lstat, mkdir, open, readdir, realpath, rename, rm, rmdir, stat, statfs } from 'node:fs/promises';
import { dirname, join, resolve } from 'node:path';
import { lutraError } from '../../errors.js';
import { readSmallFile } from '../open-file.js';
import { fromSystem, onFile } from '../system-error.js';
import { markDirectory, removeLeftover } from './job-mark.js';

/**
 * A directory that comes into being as a whole: everything is written into `<out>.partial`, which takes the final name when it
 * is complete and on the disk, or disappears. A mark in it names the job, so that no other job takes it for a leftover.
 */
export class OutputDirectory {
  #settled = false;
  #mark = '';

  private constructor(
    readonly path: string,
    /** Where to write. */
    readonly partial: string,
    /** The outermost directory that had to be made for it, if any. */
    private readonly made: string | undefined,
  ) {}

  /**
   * Claims `out`. An output that exists is replaced only with `overwrite`, and only where it is empty or a lutra checkpoint;
   * a partial one is removed only with `overwrite`, and only where the job that marked it is no more.
   *
   * @throws `LUTRA_E_SAME_PATH` where `out` is the source or holds it, `LUTRA_E_EXISTS`, `LUTRA_E_DISK_FULL` where fewer than
   *   `bytes` are free, `LUTRA_E_IO`
   */
  static async claim(
    out: string,
    options: { source: string; overwrite: boolean; bytes: number },
  ): Promise<OutputDirectory> {
    const path = resolve(out);
    const partial = `${path}.partial`;
    for (const target of [path, partial]) await requireOther(target, options.source);
    await requireReplaceable(path, options.overwrite);
    const made = await onFile(path, () => mkdir(dirname(path), { recursive: true }));
    const claimed = new OutputDirectory(path, partial, made);
    try {
      await requireSpace(dirname(path), options.bytes);
      if (options.overwrite && (await exists(partial))) await removeLeftover(partial);
      await claimPartial(partial);
    } catch (error) {
      await claimed.#removeParents();
      throw error;
    }
    try {
      claimed.#mark = await markDirectory(partial);
      return claimed;
    } catch (error) {
      await claimed.discard();
      throw error;
    }
  }

  /** Gives the partial directory, synced file by file already, its final name. */
  async publish(): Promise<void> {
    await onFile(this.#mark, () => rm(this.#mark));
    await syncDirectory(this.partial);
    await onFile(this.path, async () => {
      if (await exists(this.path)) await this.#replace();
      else await rename(this.partial, this.path);
    });
    this.#settled = true;
    await syncDirectory(dirname(this.path));
  }

  /** Removes what was written. Idempotent; does nothing after `publish`. */
  async discard(): Promise<void> {
    if (this.#settled) return;
    this.#settled = true;
    await onFile(this.partial, () => rm(this.partial, { recursive: true, force: true }));
    await this.#removeParents();
  }

  /** The old output steps aside first, and back if the new one cannot take its place. */
  async #replace(): Promise<void> {
    const old = `${this.path}.replaced-${process.pid}`;
    await rename(this.path, old);
    try {
      await rename(this.partial, this.path);
    } catch (error) {
      await rename(old, this.path);
      throw error;
    }
    await rm(old, { recursive: true, force: true });
  }

  async #removeParents(): Promise<void> {
    if (this.made === undefined) return;
    for (let parent = dirname(this.path); parent.startsWith(this.made); parent = dirname(parent))
      if (
        !(await rmdir(parent).then(
          () => true,
          () => false,
        ))
      )
        return;
  }
}

/** Compares by device and inode: the same directory has many paths. */
async function requireOther(out: string, source: string): Promise<void> {
  const target = await stat(out, { bigint: true }).catch(() => null);
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

async function requireReplaceable(out: string, overwrite: boolean): Promise<void> {
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
    const text = Buffer.from(await readSmallFile(join(directory, 'config.json'), 2 ** 27)).toString();
    return (
      (JSON.parse(text) as { quantization_config?: { quant_method?: unknown } }).quantization_config?.quant_method ===
      'lutra'
    );
  } catch {
    return false;
  }
}

async function requireSpace(directory: string, bytes: number): Promise<void> {
  const { bavail, bsize, blocks } = await onFile(directory, () => statfs(directory));
  // Some network file systems report no blocks at all.
  if (blocks > 0 && bavail * bsize < bytes)
    throw lutraError('LUTRA_E_DISK_FULL', {
      message: 'the output will not fit on the disk',
      where: directory,
      found: `${bavail * bsize} bytes free`,
      expected: `${bytes} bytes`,
    });
}

/** Making the directory is what decides between jobs: it succeeds for one of them. */
async function claimPartial(partial: string): Promise<void> {
  try {
    await mkdir(partial);
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code !== 'EEXIST') throw fromSystem(cause, partial);
    throw lutraError('LUTRA_E_EXISTS', {
      message: 'another job is writing this output, or one was killed',
      where: partial,
      hint: 'Remove the directory if no job is running, or allow to overwrite.',
      cause,
    });
  }
}

async function syncDirectory(path: string): Promise<void> {
  const handle = await onFile(path, () => open(path, 'r'));
  try {
    // Windows cannot sync directories and does not need it.
    if (process.platform !== 'win32') await onFile(path, () => handle.sync());
  } finally {
    await handle.close();
  }
}

const exists = (path: string): Promise<boolean> =>
  lstat(path).then(
    () => true,
    () => false,
  );
