import { cpSync, existsSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { beforeAll, expect } from 'vitest';
import { crc32c } from '../../../lib/formats/index.js';
import { type Progress, type QuantizationJob, quantizeModel } from '../../../lib/pipeline/index.js';
import { filesOf, scratchDirectory, words, writeRandomModel } from './random-model.js';

/** Jobs on a random model that ended early, for tests of what becomes of their work. */

export const scratch = scratchDirectory();
export const model = join(scratch, 'model');
export const blocks = 3;
export const calibration = { texts: [words(3000)], samples: 4, sequenceLength: 24 };
export const gptq = { method: 'gptq', bits: 3, groupSize: 32 };
export const rtn = { method: 'rtn', bits: 3, groupSize: 32 };
export const stop = new Error('stop');
/** The output of a job that nobody ended. */
export let whole: ReadonlyMap<string, Buffer>;
let made = 0;

export const jobIn = (parent: string, change: Partial<QuantizationJob> = {}): QuantizationJob => ({
  ...{ model, recipe: gptq, calibration, out: join(parent, 'out') },
  ...change,
});

export function stopAt(phase: Progress['phase'], block = 0) {
  return (event: Progress) => {
    if (event.phase === phase && ('block' in event ? event.block : 0) === block) throw stop;
  };
}

/** A job that ended when two of its three blocks were finished, in a directory of its own. */
export const unfinished = () => copyOf('unfinished');

/** A job that ended when all its blocks were finished, and its output not yet. */
export const unpublished = () => copyOf('unpublished');

function copyOf(run: string): { job: QuantizationJob; work: string } {
  const parent = join(scratch, `parent-${made++}`);
  cpSync(join(scratch, run), parent, { recursive: true });
  const job = jobIn(parent);
  return { job, work: `${job.out}.partial` };
}

export async function resumes(job: QuantizationJob, finished: number): Promise<void> {
  expect(await quantizeModel(job)).toMatchObject({ resumedBlocks: finished, out: job.out });
  expect(filesOf(job.out)).toEqual(whole);
  expect(readdirSync(dirname(job.out))).toEqual(['out']);
}

export const stateOf = (directory: string) =>
  readdirSync(directory, { recursive: true, encoding: 'utf8' })
    .sort()
    .map((name) => [name, statSync(join(directory, name)).mtimeMs]);

/** A run that must be refused, and leave the work as it is. */
export async function refused(job: QuantizationJob, work: string): Promise<unknown> {
  const content = (name: string) => stateOf(join(work, name));
  const before = content('checkpoint');
  const error = await quantizeModel(job).catch((reason: unknown) => reason);
  expect(error).toMatchObject({ hint: expect.stringContaining('--no-resume') });
  expect(content('checkpoint')).toEqual(before);
  expect(existsSync(join(work, 'journal.json'))).toBe(true);
  return error;
}

beforeAll(async () => {
  await writeRandomModel(model, { config: { num_hidden_layers: blocks } });
  const job = jobIn(join(scratch, 'reference'));
  await quantizeModel(job);
  whole = filesOf(job.out);
  for (const [run, onProgress] of [
    ['unfinished', stopAt('collect', 3)],
    ['unpublished', stopAt('finish')],
  ] as const)
    await expect(quantizeModel({ ...jobIn(join(scratch, run)), onProgress })).rejects.toBe(stop);
});

// biome-ignore lint/suspicious/noExplicitAny: any JSON
type Json = any;

/** Changes a journal as somebody would who also knows its checksum. */
export async function editJournal(work: string, edit: (journal: Json) => void): Promise<void> {
  const path = join(work, 'journal.json');
  const { journal } = JSON.parse(readFileSync(path, 'utf8')) as { journal: Json };
  edit(journal);
  const sum = await crc32c(new TextEncoder().encode(JSON.stringify(journal)));
  writeFileSync(path, JSON.stringify({ crc32c: sum, journal }));
}

export function flip(path: string, at: number): void {
  const bytes = readFileSync(path);
  bytes[at]! ^= 1;
  writeFileSync(path, bytes);
}

/** Where a tensor begins in the growing file, whose header is whole. */
export function beginOf(work: string, tensor: string): number {
  const bytes = readFileSync(join(work, 'checkpoint', 'model.safetensors'));
  const length = Number(bytes.readBigUInt64LE());
  const header = JSON.parse(bytes.toString('utf8', 8, 8 + length)) as Record<string, { data_offsets: number[] }>;
  return 8 + length + header[tensor]!.data_offsets[0]!;
}
