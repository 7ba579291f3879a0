import { randomBytes } from 'node:crypto';
import { existsSync, readFileSync } from 'node:fs';
import { readdir, rename, unlink, writeFile } from 'node:fs/promises';
import { hostname } from 'node:os';
import { basename, dirname, join } from 'node:path';
import { lutraError } from '../../errors.js';
import { quoted } from '../strict-json.js';
import { fromSystem, onFile } from '../system-error.js';

/** All that the mark says is its name, so that it is never seen half written, and no other job's mark has the same one. */
const pattern = /^\.lutra-job-(\d+)-([\da-f.]+)-(.+)$/;
const released = '.lutra-job-released';

/** Whose a directory is; null of a mark that its job has released. */
type Owner = { pid: number; born: string; host: string } | null;

/** What the name of a file says as a mark; undefined where it is none. */
export function ownerOf(name: string): Owner | undefined {
  if (name === released) return null;
  const [, pid, born, host] = pattern.exec(name) ?? [];
  if (pid === undefined || born === undefined || host === undefined) return undefined;
  return { pid: Number(pid), born, host };
}

/**
 * Marks a new directory as this job's: process id, the process's birth and a number of the mark's own, host. @returns the path of the mark
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
    if ((cause as NodeJS.ErrnoException).code !== 'ENOENT') throw fromSystem(cause, directory);
    // Another job was faster: its own mark tells which.
    await deadMark(directory);
    throw taken(directory, cause);
  }
}

/** Lets the next job take over, in this process, too. */
export async function releaseMark(path: string): Promise<void> {
  await onFile(path, () => rename(path, join(dirname(path), released)));
}

export const isMark = (name: string): boolean => ownerOf(basename(name)) !== undefined;

const ownMark = (): string =>
  `.lutra-job-${process.pid}-${birthOf(process.pid) ?? '0'}.${randomBytes(4).toString('hex')}-${thisHost()}`;

async function marksOf(directory: string): Promise<string[]> {
  const names = await readdir(directory).catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOTDIR' || error.code === 'ENOENT') return [];
    throw fromSystem(error, directory);
  });
  return names.filter(isMark);
}

const taken = (directory: string, cause?: unknown) =>
  lutraError('LUTRA_E_EXISTS', { message: 'another job takes this output', where: directory, cause });

/** @throws `LUTRA_E_EXISTS` where the directory has no mark, or its job runs */
export async function requireDead(directory: string): Promise<void> {
  await deadMark(directory);
}

async function deadMark(directory: string): Promise<string> {
  let marks = await marksOf(directory);
  // A mark that is being renamed may be seen under both of its names, or under none.
  for (let look = 0; marks.length !== 1 && look < 3; look++) marks = await marksOf(directory);
  const [mark, another] = marks;
  if (mark === undefined && !existsSync(directory)) throw taken(directory);
  if (mark === undefined || another !== undefined)
    throw lutraError('LUTRA_E_EXISTS', {
      message: 'this is where the output would grow, and no leftover of a job: it will not be removed',
      where: directory,
      hint: existsSync(join(directory, 'journal.json'))
        ? `It holds the journal of a job. If none is at work there, ${mark === undefined ? `make an empty file ${released} in it` : `remove all of its files that begin with .lutra-job- but one, and rename that to ${released}`}: the same job then goes on with what is there.`
        : 'Remove it yourself, or choose another output directory.',
    });
  requireEnded(ownerOf(mark) ?? null, directory, mark);
  return mark;
}

/** @throws `LUTRA_E_EXISTS` where the owner may be at work */
export function requireEnded(owner: Owner, directory: string, mark: string): void {
  if (owner === null) return;
  const { pid, born, host } = owner;
  const here = host === thisHost();
  if (!here || isRunning(pid, born))
    throw lutraError('LUTRA_E_EXISTS', {
      message: 'another job is writing this output',
      where: directory,
      found: here ? `process ${pid}` : `process ${pid} of ${hostText(host)}`,
      hint:
        `Wait for it or end it. If it is no more, rename ${quoted(mark)} in that directory to ${released}: the same job then goes on ` +
        'with what is there.',
    });
}

function isRunning(pid: number, born: string): boolean {
  if (process.platform === 'linux') return born.startsWith(`${birthOf(pid)}.`);
  try {
    return process.kill(pid, 0);
  } catch (error) {
    // EPERM: it runs, as somebody else's.
    return (error as NodeJS.ErrnoException).code !== 'ESRCH';
  }
}

/**
 * What tells a process from every other that had its id, in a container that was started again or before a power cut, whatever
 * the clock says: when it began, in ticks of the system, and which start of the system. Null for a process that is no more, or
 * has ended and only waits for its parent to look, which the first process of many a container never does; '0' where the system
 * does not tell.
 */
function birthOf(pid: number): string | null {
  if (process.platform !== 'linux') return '0';
  try {
    // Behind the program's name, which may hold anything: the state is the first field, the start the twentieth.
    const fields = readFileSync(`/proc/${pid}/stat`, 'latin1').split(') ').at(-1)!.split(' ');
    const boot = readFileSync('/proc/sys/kernel/random/boot_id', 'latin1').slice(0, 8);
    return fields[0] === 'Z' ? null : `${fields[19]}.${boot}`;
  } catch {
    return null;
  }
}

const thisHost = (): string => encodeURIComponent(hostname());

/** As a mark has it, where that is no name of a host that lutra wrote. */
function hostText(host: string): string {
  try {
    return quoted(decodeURIComponent(host));
  } catch {
    return quoted(host);
  }
}
