import { mkdir, readdir, rename, rm, rmdir, stat, unlink } from 'node:fs/promises';
import { dirname, join, resolve } from 'node:path';
import { lutraError } from '../../errors.js';
import { syncDirectory, syncing } from '../durable.js';
import { fromSystem, onFile } from '../system-error.js';
import { isMark, markDirectory, releaseMark, requireDead, takeOver } from './job-mark.js';
import {
  exists,
  nearestDirectory,
  requireOther,
  requireReplaceable,
  requireSpace,
  requireWritable,
} from './output-path.js';

export interface ClaimOptions {
  source: string;
  /** Whether an output that is there may be replaced in the end; only an empty directory or a lutra checkpoint ever is. */
  overwrite: boolean;
  /** What to do with work of a job that is no more: go on with it where there is a journal, or remove it. */
  leftover: 'resume' | 'remove';
}

/** What an earlier run has left: nothing of use, work to go on with, or an output that has its name already. */
export interface Leftover {
  leftover: 'none' | 'unfinished' | 'published';
  /** The file that tells how far the work is. */
  journal: string;
}

/**
 * A directory that comes into being as a whole. A job works in `<out>.partial`: a mark there names the job, so that no other
 * takes it for a leftover; the checkpoint grows in a directory of its own, which takes the final name when it is complete and
 * on the disk; beside it lie scratch files and the journal, which stay until then.
 */
export class OutputDirectory implements Leftover {
  leftover: Leftover['leftover'] = 'none';
  #settled = false;
  #mark = '';

  private constructor(
    readonly path: string,
    /** The job's own directory. */
    readonly work: string,
    /** The outermost directory that had to be made for it, if any. */
    private readonly made: string | undefined,
  ) {}

  /** Where the checkpoint grows; not made by `claim`. */
  get checkpoint(): string {
    return checkpointOf(this.work);
  }

  get journal(): string {
    return journalOf(this.work);
  }

  /** The output that was there before, while the new one takes its place. */
  get #replaced(): string {
    return join(this.work, 'replaced');
  }

  /**
   * Removes what a job that is no more has left of its work on `out`.
   *
   * @throws `LUTRA_E_EXISTS` where a job is at work there
   */
  static async removeLeftover(out: string): Promise<void> {
    const path = resolve(out);
    const work = workOf(path);
    if (!(await exists(work))) return;
    const claimed = new OutputDirectory(path, work, undefined);
    claimed.#mark = await takeOver(work);
    await claimed.discard();
  }

  /**
   * Whether `out` can be claimed, as far as that can be seen without a change on the disk.
   *
   * @param bytes that the job will write: less what an earlier run has left of them
   * @returns the directory that there is already in which it will lie, the bytes that are free there, and what an earlier run has left
   * @throws `LUTRA_E_SAME_PATH`, `LUTRA_E_EXISTS`, `LUTRA_E_DISK_FULL`, `LUTRA_E_IO`
   */
  static async check(
    out: string,
    { source, overwrite, leftover, bytes }: ClaimOptions & { bytes: number },
  ): Promise<{ directory: string; freeBytes: number | null } & Leftover> {
    const path = resolve(out);
    const work = workOf(path);
    for (const target of [path, work]) await requireOther(target, source);
    const begun = await exists(work);
    if (begun && (await namesIn(work)).length > 0) await requireDead(work);
    const left = begun ? await leftoverOf(path, work) : 'none';
    if (left !== 'published' || leftover === 'remove') await requireReplaceable(path, overwrite);
    const directory = await nearestDirectory(dirname(path));
    await requireWritable(directory);
    const written = begun ? await bytesIn(work) : 0;
    const freeBytes = await requireSpace(directory, Math.max(0, bytes - written));
    return { directory, freeBytes, leftover: left, journal: journalOf(work) };
  }

  /**
   * Claims `out` and its work directory.
   *
   * @throws `LUTRA_E_SAME_PATH` where `out` is the source or holds it; `LUTRA_E_EXISTS` where it may not be replaced, another job
   *   is writing it, or what lies at its work directory is no job's; `LUTRA_E_IO`
   */
  static async claim(out: string, { source, overwrite, leftover }: ClaimOptions): Promise<OutputDirectory> {
    const path = resolve(out);
    const work = workOf(path);
    for (const target of [path, work]) await requireOther(target, source);
    if (!(await exists(work))) await requireReplaceable(path, overwrite);
    const made = await onFile(path, () => mkdir(dirname(path), { recursive: true }));
    const claimed = new OutputDirectory(path, work, made);
    try {
      await claimed.#claimWork();
    } catch (error) {
      // The mark may be there already, and nothing but a process's end makes a mark dead.
      await claimed.keep();
      await claimed.#removeParents();
      throw error;
    }
    try {
      claimed.leftover = await leftoverOf(path, work);
    } catch (error) {
      // What could not be looked at may be hours of work.
      await claimed.keep();
      throw error;
    }
    try {
      if (leftover === 'remove' || claimed.leftover === 'none') await claimed.#empty();
      if (claimed.leftover !== 'published') await requireReplaceable(path, overwrite);
      return claimed;
    } catch (error) {
      await claimed.leave();
      throw error;
    }
  }

  /** Making the directory, or giving its mark a new name, is what decides between jobs: it succeeds for one of them. */
  async #claimWork(): Promise<void> {
    const { work } = this;
    if (await makeDirectory(work)) this.#mark = await markDirectory(work);
    else if ((await namesIn(work)).length > 0) this.#mark = await takeOver(work);
    else {
      // Of a job that was killed before it had marked it.
      await rmdir(work).catch(() => {});
      if (!(await makeDirectory(work)))
        throw lutraError('LUTRA_E_EXISTS', { message: 'another job takes this output', where: work });
      this.#mark = await markDirectory(work);
    }
    // Also the names of directories that were made for it.
    const outermost = dirname(this.made ?? work);
    for (let at = dirname(work); ; at = dirname(at)) {
      await syncDirectory(at);
      if (at === outermost || at === dirname(at)) return;
    }
  }

  /** @throws `LUTRA_E_DISK_FULL` where what is still to be written of `bytes` does not fit */
  async requireRoom(bytes: number): Promise<void> {
    await requireSpace(dirname(this.path), Math.max(0, bytes - (await bytesIn(this.checkpoint))));
  }

  /**
   * Gives the checkpoint, synced file by file already, its final name, and removes the work directory. From the new name on an
   * abort comes too late.
   */
  async publish(signal?: AbortSignal): Promise<void> {
    await syncing(signal, () => syncDirectory(this.checkpoint));
    signal?.throwIfAborted();
    await onFile(this.path, async () => {
      if (await exists(this.path)) await this.#replace();
      else await rename(this.checkpoint, this.path);
    });
    await this.clean();
  }

  /** Removes the work directory of an output that has its name. The journal goes last: until then the next run understands. */
  async clean(): Promise<void> {
    await syncDirectory(dirname(this.path));
    await onFile(this.work, async () => {
      for (const name of await readdir(this.work))
        if (!isMark(name) && join(this.work, name) !== this.journal)
          await rm(join(this.work, name), { recursive: true });
      await rm(this.journal, { force: true });
    });
    this.#settled = true;
    // The output is complete and nothing tells of a job any more: an empty directory that stays is in nobody's way.
    await unlink(this.#mark).catch(() => releaseMark(this.#mark).catch(() => {}));
    await rmdir(this.work).catch(() => {});
  }

  /** Ends this job's work: for the next run to go on with where an earlier one has left something, else without a trace. */
  async leave(): Promise<void> {
    if (this.leftover === 'none') await this.discard();
    else await this.keep();
  }

  /** Leaves everything as it is for the next run. Does nothing after `publish`. */
  async keep(): Promise<void> {
    if (this.#settled) return;
    this.#settled = true;
    // What comes first is why the job ends; a mark that cannot be renamed is dead when its process ends.
    await releaseMark(this.#mark).catch(() => {});
  }

  /** Removes the work. Idempotent; does nothing after `publish`. */
  async discard(): Promise<void> {
    if (this.#settled) return;
    this.#settled = true;
    try {
      await this.#empty();
      await onFile(this.work, () => rm(this.work, { recursive: true, force: true }));
    } catch (error) {
      // What cannot be removed now can be by the next job.
      await releaseMark(this.#mark).catch(() => {});
      throw error;
    }
    await this.#removeParents();
  }

  /** The old output steps aside first, and back if the new one cannot take its place. */
  async #replace(): Promise<void> {
    const old = this.#replaced;
    await rm(old, { recursive: true, force: true });
    await rename(this.path, old);
    try {
      await rename(this.checkpoint, this.path);
    } catch (error) {
      await rename(old, this.path);
      throw error;
    }
  }

  /** Removes all but the mark, the journal first; an output that was about to be replaced when its job was killed goes back. */
  async #empty(): Promise<void> {
    this.leftover = 'none';
    const { work, checkpoint, path } = this;
    await onFile(work, async () => {
      if ((await exists(this.#replaced)) && (await exists(checkpoint)) && !(await exists(path)))
        await rename(this.#replaced, path);
      await rm(this.journal, { force: true });
      for (const name of await readdir(work))
        if (!isMark(name)) await rm(join(work, name), { recursive: true, force: true });
    });
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

const workOf = (path: string): string => `${path}.partial`;
const journalOf = (work: string): string => join(work, 'journal.json');
const checkpointOf = (work: string): string => join(work, 'checkpoint');

/**
 * A journal without a checkpoint, and without an output, is damaged work and no leftover that may be removed in silence.
 *
 * @throws `LUTRA_E_IO` where that cannot be told
 */
async function leftoverOf(path: string, work: string): Promise<Leftover['leftover']> {
  if (!(await exists(journalOf(work)))) return 'none';
  if (await exists(checkpointOf(work))) return 'unfinished';
  return (await exists(path)) ? 'published' : 'unfinished';
}

/** What lies in a directory; of something else that has its name, that. */
async function namesIn(path: string): Promise<string[]> {
  return (await onFile(path, () => stat(path))).isDirectory() ? await onFile(path, () => readdir(path)) : [path];
}

/** Bytes that the files of a directory, and of those in it, take on the disk. */
async function bytesIn(directory: string): Promise<number> {
  let bytes = 0;
  for (const name of await readdir(directory, { recursive: true }).catch(() => []))
    bytes += ((await stat(join(directory, name)).catch(() => null))?.blocks ?? 0) * 512;
  return bytes;
}

/** @returns whether this call made it */
async function makeDirectory(path: string): Promise<boolean> {
  try {
    await mkdir(path);
    return true;
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code === 'EEXIST') return false;
    throw fromSystem(cause, path);
  }
}
