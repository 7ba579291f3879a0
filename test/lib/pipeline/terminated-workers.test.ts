import { existsSync, readdirSync, renameSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { Worker } from 'node:worker_threads';
import { beforeAll, expect, test } from 'vitest';
import { Random } from '../../../lib/calibration/index.js';
import { type QuantizationJob, quantizeModel } from '../../../lib/pipeline/index.js';
import { program } from '../cli/lutra.js';
import { filesOf, scratchDirectory, words, writeRandomModel } from './random-model.js';

const scratch = scratchDirectory();
const model = join(scratch, 'model');
const recipe = { method: 'gptq', bits: 3, groupSize: 32 };
const calibration = { texts: [words(3000)], samples: 4, sequenceLength: 24, heldOut: 1 };
const jobIn = (name: string): QuantizationJob => ({ model, recipe, calibration, out: join(scratch, name, 'out') });
let whole: ReadonlyMap<string, Buffer>;
/** Events of a job that nobody ends. */
let events = 0;

beforeAll(async () => {
  await writeRandomModel(model, { config: { num_hidden_layers: 3 } });
  const job = jobIn('whole');
  await quantizeModel({ ...job, onProgress: () => (events += 1) });
  whole = filesOf(job.out);
});

const index = pathToFileURL(join(dirname(program), '..', 'index.js')).href;
const body = `
  const { parentPort, workerData } = require('node:worker_threads');
  import(${JSON.stringify(index)}).then(({ quantizeModel }) =>
    quantizeModel({ ...workerData, onProgress: () => parentPort.postMessage('event') }));`;

/** Runs a job in a thread that is terminated `milliseconds` behind its `event`th event, unless it has ended. */
async function terminated(job: QuantizationJob, event: number, milliseconds: number): Promise<void> {
  const worker = new Worker(body, { eval: true, workerData: job });
  let heard = 0;
  await new Promise<void>((resolve, reject) => {
    worker.once('error', reject);
    worker.once('exit', resolve);
    worker.on('message', () => {
      heard += 1;
      if (heard === event) setTimeout(() => worker.terminate(), milliseconds);
    });
  });
}

/** Goes on with what a thread has left. The process lives: a mark of a terminated thread must be released by hand. */
async function goOn(job: QuantizationJob): Promise<void> {
  const work = `${job.out}.partial`;
  const mark = existsSync(work) && readdirSync(work).find((name) => /^\.lutra-job-\d/.test(name));
  if (mark) {
    await expect(quantizeModel(job)).rejects.toMatchObject({ code: 'LUTRA_E_EXISTS', where: work });
    renameSync(join(work, mark), join(work, '.lutra-job-released'));
  }
  // A thread that came to its end, or to the name of the output, has nothing left to be done but for its own directory.
  const ended = existsSync(job.out) && !existsSync(join(work, 'journal.json'));
  if (ended) await expect(quantizeModel(job)).rejects.toMatchObject({ code: 'LUTRA_E_EXISTS' });
  else await quantizeModel(job);
  expect(filesOf(job.out)).toEqual(whole);
}

test('jobs in threads that are terminated at random moments, three at a time, go on to the same bytes', async () => {
  const random = new Random(7);
  for (let round = 0; round < 5; round++) {
    const jobs = [0, 1, 2].map((thread) => jobIn(`round-${round}-${thread}`));
    await Promise.all(jobs.map((job) => terminated(job, 1 + random.below(events), 4 * random.next())));
    for (const job of jobs) await goOn(job);
  }
});

test('jobs in several threads at once, and in the main one, write the same bytes', async () => {
  const jobs = [0, 1].map((thread) => jobIn(`together-${thread}`));
  const here = jobIn('together');
  await Promise.all([...jobs.map((job) => terminated(job, 0, 0)), quantizeModel(here)]);
  for (const job of [...jobs, here]) expect(filesOf(job.out)).toEqual(whole);
});
