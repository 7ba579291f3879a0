/**
 * Makes the calls of a small job fail one after the other, each kind of call in each way, and looks at what comes of it: a
 * typed error and nothing under the output's name, or the right bytes; and the same job, run again, gives the right bytes.
 * Run by test/faults/run.sh, which loads the interposer. `--every N` tries every Nth call; `--only KIND,…`.
 */
import { cpSync, existsSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { LutraError } from '../../lib/errors.js';
import { type QuantizationJob, quantizeModel } from '../../lib/index.js';
import { filesOf, words, writeRandomModel } from '../lib/pipeline/random-model.js';
import { Control, type ErrorName, type Kind } from './control.js';

const { values } = parseArgs({
  options: {
    every: { type: 'string', default: '1' },
    only: { type: 'string' },
    first: { type: 'string', default: '1' },
  },
});
const root = process.env.LUTRA_FAULT_ROOT!;
const control = new Control(process.env.LUTRA_FAULT_CONTROL!);
const outputs = join(root, 'outputs');
const out = join(outputs, 'out');
const job: QuantizationJob = {
  model: join(root, 'model'),
  out,
  recipe: { method: 'gptq', bits: 3, groupSize: 32 },
  calibration: { file: join(root, 'text.txt'), samples: 3, sequenceLength: 24 },
};
const longest = 60_000;

type Campaign = readonly [Kind, ErrorName, lasting?: 'lasting'];
const campaigns: readonly Campaign[] = [
  ['open', 'EMFILE'],
  ['open', 'EIO', 'lasting'],
  ['read', 'EIO'],
  ['read', 'EINTR'],
  ['read', 'short'],
  ['write', 'EIO'],
  ['write', 'ENOSPC', 'lasting'],
  ['write', 'EINTR'],
  ['write', 'short'],
  ['sync', 'EIO'],
  ['rename', 'EIO'],
  ['change', 'EIO'],
  ['change', 'ENOSPC', 'lasting'],
  ['look', 'EIO'],
  ['close', 'EIO'],
  ['memory', 'ENOMEM'],
  ['memory', 'ENOMEM', 'lasting'],
  ['objects', 'ENOMEM'],
];

/** Runs the job. @returns the error it ended with, or null */
async function run(): Promise<unknown> {
  const late = setTimeout(() => {
    console.error(`the job hangs: ${place}`);
    process.exit(1);
  }, longest);
  try {
    await quantizeModel(job);
    return null;
  } catch (error) {
    return error ?? new Error('nothing was thrown');
  } finally {
    clearTimeout(late);
  }
}

let place = 'before any fault';
function requireTrue(holds: boolean, what: string, cause?: unknown): asserts holds {
  if (holds) return;
  console.error(`${place}: ${what}`, cause ?? '');
  console.error(readdirSync(outputs));
  process.exit(1);
}

/** The work directory of a run that ended behind its first block. */
const unfinished = join(root, 'unfinished');

async function keepUnfinished(): Promise<void> {
  const stop = new AbortController();
  const onProgress: QuantizationJob['onProgress'] = (event) => {
    if (event.phase === 'collect' && existsSync(join(`${out}.partial`, 'journal.json'))) stop.abort();
  };
  clear();
  await quantizeModel({ ...job, signal: stop.signal, onProgress }).catch(() => {});
  cpSync(`${out}.partial`, unfinished, { recursive: true });
}

/** Leaves nothing where the job writes, or what the unfinished run left. */
function clear(resuming = false): void {
  for (const name of readdirSync(outputs)) rmSync(join(outputs, name), { recursive: true });
  if (resuming) cpSync(unfinished, `${out}.partial`, { recursive: true });
}

let reference: Map<string, Buffer>;
function requireRight(): void {
  const found = filesOf(out);
  requireTrue([...found.keys()].join() === [...reference.keys()].join(), 'the output has other files');
  for (const [name, bytes] of reference)
    requireTrue(bytes.equals(found.get(name)!), `${name} differs`, `${found.get(name)}`.slice(0, 2000));
}

async function campaign([kind, error, lasting]: Campaign, every: number, resuming: boolean): Promise<string> {
  const tally = { calls: 0, faults: 0, refused: 0, right: 0, codes: new Map<string, number>() };
  clear(resuming);
  control.arm(kind, error, 0, false);
  requireTrue((await run()) === null, 'a job without a fault failed');
  tally.calls = control.disarm().counted;
  for (let call = Number(values.first); call <= tally.calls; call += every) {
    place = `${resuming ? 'resuming, ' : ''}${kind} ${call} of ${tally.calls}, ${error}${lasting ? ' from there on' : ''}`;
    clear(resuming);
    control.arm(kind, error, call, lasting !== undefined);
    const failure = await run();
    if (!control.disarm().fired) continue;
    tally.faults++;
    if (failure === null) {
      tally.right++;
    } else {
      requireTrue(failure instanceof LutraError, 'not a LutraError', failure);
      requireTrue(failure.code !== 'LUTRA_E_INTERNAL', 'an internal error', failure);
      if (existsSync(out)) requireRight();
      requireTrue(
        readdirSync(outputs).every((name) => name === 'out' || name === 'out.partial'),
        'something is left besides the output and the work directory',
        failure,
      );
      tally.refused++;
      tally.codes.set(failure.code, (tally.codes.get(failure.code) ?? 0) + 1);
      const again = await run();
      requireTrue(again === null, 'the same job does not succeed afterwards', again);
    }
    requireRight();
  }
  const codes = [...tally.codes].map(([code, times]) => `${code.replace('LUTRA_E_', '')} ${times}`).join(', ');
  return `${tally.calls} calls, ${tally.faults} faults: ${tally.right} ended right, ${tally.refused} refused (${codes})`;
}

await writeRandomModel(job.model);
writeFileSync((job.calibration as { file: string }).file, words(600));
const first = await run();
requireTrue(first === null, 'the job fails without a fault', first);
reference = filesOf(out);
await keepUnfinished();
const only = values.only?.split(',');
let faults = 0;
for (const resuming of [false, true]) {
  console.log(resuming ? 'a job that goes on behind its first block:' : 'a job from its start:');
  for (const one of campaigns) {
    if (only && !only.includes(one[0])) continue;
    const begin = performance.now();
    const line = await campaign(one, Number(values.every), resuming);
    faults += Number(/(\d+) faults/.exec(line)![1]);
    console.log(`  ${one.join(' ')}: ${line}; ${((performance.now() - begin) / 1000).toFixed(0)} s`);
  }
}
console.log(`${faults} faults in all`);
clear();
control.close();
