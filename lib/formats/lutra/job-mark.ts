import { readdir, rm, unlink, writeFile } from 'node:fs/promises';
import { hostname } from 'node:os';
import { join } from 'node:path';
import { lutraError } from '../../errors.js';
import { onFile } from '../system-error.js';

/** All that the mark says is its name, so that it is never seen half written, and no other job's mark has the same one. */
const pattern = /^\.lutra-job-(\d+)-(\d+)-(.+)$/;

/** Marks a new directory as this job's: process id, time in milliseconds, host. @returns the path of the mark */
export async function markDirectory(directory: string): Promise<string> {
  const path = join(directory, `.lutra-job-${process.pid}-${Date.now()}-${thisHost()}`);
  await onFile(path, () => writeFile(path, '', { flag: 'wx' }));
  return path;
}

/**
 * Removes what a job that is no more has left. The removal of the mark decides: it succeeds for one job only, and from then
 * on nobody else takes the directory for a leftover.
 *
 * @throws `LUTRA_E_EXISTS` where the directory has no mark, its job runs, or another job was faster
 */
export async function removeLeftover(directory: string): Promise<void> {
  const mark = await deadMark(directory);
  try {
    // Not rm: where another job removes the file between two of its steps, it succeeds too.
    await unlink(join(directory, mark));
  } catch (cause) {
    throw lutraError('LUTRA_E_EXISTS', { message: 'another job takes this output', where: directory, cause });
  }
  await onFile(directory, () => rm(directory, { recursive: true }));
}

async function deadMark(directory: string): Promise<string> {
  const marks = (await readdir(directory).catch(() => [])).filter((name) => pattern.test(name));
  const [, pid = '', time = '', host = ''] = pattern.exec(marks[0] ?? '') ?? [];
  if (marks.length !== 1)
    throw lutraError('LUTRA_E_EXISTS', {
      message: 'this is where the output would grow, and no leftover of a job: it will not be removed',
      where: directory,
      hint: 'Remove it yourself, or choose another output directory.',
    });
  if (host !== thisHost() || isRunning(Number(pid), Number(time)))
    throw lutraError('LUTRA_E_EXISTS', {
      message: 'another job is writing this output',
      where: directory,
      found: host === thisHost() ? `process ${pid}` : `process ${pid} of ${decodeURIComponent(host)}`,
      hint: 'Wait for it or end it; remove the directory yourself if that process is no job of lutra.',
    });
  return marks[0]!;
}

function isRunning(pid: number, time: number): boolean {
  // In a container every job may have the same process id: a mark older than this process is not its own.
  if (pid === process.pid) return time >= Date.now() - process.uptime() * 1000 - 1000;
  try {
    return process.kill(pid, 0);
  } catch (error) {
    // EPERM: it runs, as somebody else's.
    return (error as NodeJS.ErrnoException).code !== 'ESRCH';
  }
}

const thisHost = (): string => encodeURIComponent(hostname());
