/**
 * Makes the calls of a small job fail one after the other, each kind of call in each way, and looks at what comes of it: a
 * typed error and nothing under the output's name, or the right bytes; and the same job, run again, gives the right bytes.
 * The same for a job that goes on, and for two jobs at once on one output, of which one must be refused.
 * Run by test/faults/run.sh, which loads the interposer. `--every N` tries every Nth call; `--only KIND,…`; `--as MODE,…`.
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
    as: { type: 'string' },
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

/** How jobs are run: from the start, behind the first block, or two at once. */
const modes = ['alone', 'resuming', 'together'] as const;
type Mode = (typeof modes)[number];

/** Runs the job. @returns the error it ended with, or null; of two jobs at once null where one came to its end */
async function run(mode: Mode = 'alone'): Promise<unknown> {
  const late = setTimeout(() => {
    console.error(`the job hangs: ${place}`);
    process.exit(1);
  }, longest);
  try {
    const runs = await Promise.allSettled(
      Array.from({ length: mode === 'together' ? 2 : 1 }, () => quantizeModel(job)),
    );
    const failures = runs.flatMap((one) =>
      one.status === 'rejected' ? [one.reason ?? new Error('nothing was thrown')] : [],
    );
    if (mode === 'together') {
      requireTrue(failures.length > 0, 'two jobs at once have written one output');
      for (const failure of failures) requireTyped(failure);
    }
    if (failures.length < runs.length) return null;
    return failures.find(({ code }) => code !== 'LUTRA_E_EXISTS') ?? failures[0];
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

function requireTyped(failure: unknown): asserts failure is LutraError {
  requireTrue(failure instanceof LutraError, 'not a LutraError', failure);
  requireTrue(failure.code !== 'LUTRA_E_INTERNAL', 'an internal error', failure);
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

async function campaign([kind, error, lasting]: Campaign, every: number, mode: Mode): Promise<string> {
  const resuming = mode === 'resuming';
  const tally = { calls: 0, faults: 0, refused: 0, right: 0, codes: new Map<string, number>() };
  clear(resuming);
  control.arm(kind, error, 0, false);
  requireTrue((await run(mode)) === null, 'a job without a fault failed');
  tally.calls = control.disarm().counted;
  for (let call = Number(values.first); call <= tally.calls; call += every) {
    place = `${mode}, ${kind} ${call} of ${tally.calls}, ${error}${lasting ? ' from there on' : ''}`;
    clear(resuming);
    control.arm(kind, error, call, lasting !== undefined);
    const failure = await run(mode);
    if (!control.disarm().fired) continue;
    tally.faults++;
    if (failure === null) {
      tally.right++;
    } else {
      requireTyped(failure);
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
const titles: Record<Mode, string> = {
  alone: 'a job from its start:',
  resuming: 'a job that goes on behind its first block:',
  together: 'two jobs at once on one output:',
};
const chosen = values.as?.split(',');
for (const mode of modes) {
  if (chosen && !chosen.includes(mode)) continue;
  console.log(titles[mode]);
  for (const one of campaigns) {
    if (only && !only.includes(one[0])) continue;
    const begin = performance.now();
    const line = await campaign(one, Number(values.every), mode);
    faults += Number(/(\d+) faults/.exec(line)![1]);
    console.log(`  ${one.join(' ')}: ${line}; ${((performance.now() - begin) / 1000).toFixed(0)} s`);
  }
}
console.log(`${faults} faults in all`);
clear();
control.close();
