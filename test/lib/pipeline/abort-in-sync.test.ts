import { existsSync, readdirSync } from 'node:fs';
import { type FileHandle, open } from 'node:fs/promises';
import { join } from 'node:path';
import { afterEach, beforeAll, expect, test, vi } from 'vitest';
import { givenBack, type QuantizationJob, quantizeModel } from '../../../lib/pipeline/index.js';
import { filesOf, scratchDirectory, words, writeRandomModel } from './random-model.js';

const scratch = scratchDirectory();
const model = join(scratch, 'model');
const recipe = { method: 'gptq', bits: 3, groupSize: 32 };
const calibration = { texts: [words(600)], samples: 2, sequenceLength: 16, heldOut: 1 };
let handles: FileHandle;
let sync: FileHandle['sync'];
let whole: ReadonlyMap<string, Buffer>;

beforeAll(async () => {
  await writeRandomModel(model);
  const handle = await open(model, 'r');
  await handle.close();
  handles = Object.getPrototypeOf(handle) as FileHandle;
  sync = handles.sync;
  await quantizeModel({ model, recipe, calibration, out: join(scratch, 'whole') });
  whole = filesOf(join(scratch, 'whole'));
});

afterEach(() => vi.restoreAllMocks());

/** Makes the `index`th sync of a file or directory wait for `release`, and tells of it. */
function holdSync(index: number): { held: Promise<void>; release: () => void } {
  const [held, isHeld] = gate();
  const [released, release] = gate();
  let count = 0;
  vi.spyOn(handles, 'sync').mockImplementation(async function (this: FileHandle) {
    if (count++ === index) {
      isHeld();
      await released;
    }
    await sync.call(this);
  });
  return { held, release };
}

function gate(): [Promise<void>, () => void] {
  let open = () => {};
  return [new Promise((resolve) => (open = resolve)), open];
}

/** @returns what became of a job that is aborted in its `index`th sync; null where it has fewer */
async function abortIn(index: number): Promise<'answered' | 'too late' | null> {
  const parent = join(scratch, `sync-${index}`);
  const controller = new AbortController();
  const reason = new Error('enough');
  const aborted: QuantizationJob = { model, recipe, calibration, out: join(parent, 'out'), signal: controller.signal };
  let answered = false;
  let late = 0;
  const hear = () => {
    if (answered) late += 1;
  };
  const { held, release } = holdSync(index);
  const ended = quantizeModel({ ...aborted, onProgress: hear, onLayer: hear });
  if ((await Promise.race([held, ended])) !== undefined) return null;
  controller.abort(reason);
  const job = { ...aborted, signal: undefined };
  if (existsSync(job.out)) {
    release();
    await ended;
    expect(filesOf(job.out)).toEqual(whole);
    return 'too late';
  }
  // The sync still waits.
  await expect(ended).rejects.toBe(reason);
  answered = true;
  if (existsSync(`${job.out}.partial`))
    await expect(quantizeModel(job)).rejects.toMatchObject({ code: 'LUTRA_E_EXISTS', where: `${job.out}.partial` });
  release();
  await givenBack(controller.signal);
  const names = existsSync(parent) ? readdirSync(parent, { recursive: true, encoding: 'utf8' }) : [];
  expect(names.filter((name) => /\.lutra-job-\d/.test(name))).toEqual([]);
  expect(existsSync(parent)).toBe(existsSync(join(parent, 'out.partial', 'journal.json')));
  expect(late).toBe(0);
  expect(existsSync(job.out)).toBe(false);
  await quantizeModel(job);
  expect(filesOf(job.out)).toEqual(whole);
  return 'answered';
}

// Under sanitizers its dozens of jobs take minutes.
test.skipIf(process.env.LUTRA_SANITIZED === '1')(
  'an abort in any sync is answered before that ends; the work stays claimed until then, and is consistent',
  async () => {
    const outcomes: string[] = [];
    for (let index = 0; ; index++) {
      const outcome = await abortIn(index);
      if (outcome === null) break;
      outcomes.push(outcome);
    }
    // Only the name of the finished output, in the directory around it, comes behind what can be aborted.
    expect(outcomes.indexOf('too late')).toBe(outcomes.length - 1);
    expect(outcomes.length).toBeGreaterThan(12);
  },
);
