import { readFileSync } from 'node:fs';
import { readdir, rename, unlink, writeFile } from 'node:fs/promises';
import { hostname, uptime } from 'node:os';
import { basename, dirname, join } from 'node:path';
import { lutraError } from '../../errors.js';
import { fromSystem, onFile } from '../system-error.js';

/** All that the mark says is its name, so that it is never seen half written, and no other job's mark has the same one. */
const pattern = /^\.lutra-job-(?:released|(\d+)-(\d+)-(.+))$/;
const released = '.lutra-job-released';

/**
 * Marks a new directory as this job's: process id, time in milliseconds, host. @returns the path of the mark
 *
 * @throws `LUTRA_E_EXISTS` where another job has marked it meanwhile
 */
export async function markDirectory(directory: string): Promise<string> {
  const path = join(directory, ownMark());
  try {
    await onFile(path, () => writeFile(path, '', { flag: 'wx' }));
    if ((await marksOf(directory)).length === 1) return path;
    throw taken(directory);
  } catch (error) {
    await unlink(path).catch(() => {});
    throw error;
  }
}

/**
 * Makes this job the owner of what a job that is no more, or that has released it, has left. The mark's new name decides: the
 * renaming succeeds for one job only.
 *
 * @returns the path of the mark
 * @throws `LUTRA_E_EXISTS` where the directory has no mark, its job runs, or another job was faster
 */
export async function takeOver(directory: string): Promise<string> {
  const mark = await deadMark(directory);
  const path = join(directory, ownMark());
  try {
    await rename(join(directory, mark), path);
    return path;
  } catch (cause) {
    throw taken(directory, cause);
  }
}

/** Lets the next job take over, in this process, too. */
export async function releaseMark(path: string): Promise<void> {
  await onFile(path, () => rename(path, join(dirname(path), released)));
}

export const isMark = (name: string): boolean => pattern.test(basename(name));

const ownMark = (): string => `.lutra-job-${process.pid}-${Date.now()}-${thisHost()}`;

async function marksOf(directory: string): Promise<string[]> {
  const names = await readdir(directory).catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOTDIR' || error.code === 'ENOENT') return [];
    throw fromSystem(error, directory);
  });
  return names.filter(isMark);
}

const taken = (directory: string, cause?: unknown) =>
  lutraError('LUTRA_E_EXISTS', { message: 'another job takes this output', where: directory, cause });

async function deadMark(directory: string): Promise<string> {
  const marks = await marksOf(directory);
  const [, pid, time = '', host = ''] = pattern.exec(marks[0] ?? '') ?? [];
  if (marks.length !== 1)
    throw lutraError('LUTRA_E_EXISTS', {
      message: 'this is where the output would grow, and no leftover of a job: it will not be removed',
      where: directory,
      hint: 'Remove it yourself, or choose another output directory.',
    });
  if (pid !== undefined && (host !== thisHost() || isRunning(Number(pid), Number(time))))
    throw lutraError('LUTRA_E_EXISTS', {
      message: 'another job is writing this output',
      where: directory,
      found: host === thisHost() ? `process ${pid}` : `process ${pid} of ${decodeURIComponent(host)}`,
      hint: 'Wait for it or end it; remove the directory yourself if that process is no job of lutra.',
    });
  return marks[0]!;
}

function isRunning(pid: number, time: number): boolean {
  // In a container every job may have the same process id: a mark older than this process is not its own. And after a power
  // cut the process that has the id now is another one.
  const since = pid === process.pid ? process.uptime() : uptime();
  if (time < Date.now() - since * 1000 - 1000) return false;
  try {
    return process.kill(pid, 0) && !isZombie(pid);
  } catch (error) {
    // EPERM: it runs, as somebody else's.
    return (error as NodeJS.ErrnoException).code !== 'ESRCH';
  }
}

/** Whether a process has ended and only waits for its parent to look, which the first process of many a container never does. */
function isZombie(pid: number): boolean {
  try {
    return /^\d+ \(.*\) Z /s.test(readFileSync(`/proc/${pid}/stat`, 'latin1'));
  } catch {
    return false;
  }
}

const thisHost = (): string => encodeURIComponent(hostname());
