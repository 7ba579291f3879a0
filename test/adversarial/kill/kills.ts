import { spawn } from 'node:child_process';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Random } from '../../../lib/calibration/index.js';
import { demo, program, texts } from '../../lib/cli/lutra.js';
import { resultOf } from '../../lib/cli/schemas.js';
import { filesOf } from '../../lib/pipeline/random-model.js';

/** What a job of the command line, killed at a random moment, had done by then. */
export interface Kill {
  /** Layers that it had told of. */
  layers: number;
  /** Blocks in its journal; null where the output had its name already. */
  blocks: number | null;
  /** What is wrong with what became of it; empty as it should be. */
  faults: string[];
}

const job = ['quantize', demo, '--method', 'gptq', '--bits', '3', '--group-size', '64', '--json'];
const calibration = ['--calibration', join(texts, 'calibration.txt'), '--document-separator', '<|endoftext|>'];
const short = ['--sequence-length', '64', '--threads', '2'];

export interface Kills {
  count: number;
  seed: number;
  /** Calibration windows: the time that blocks take. */
  samples: number;
}

interface Run {
  killed: boolean;
  code: number | null;
  /** Those whose solution was reported. */
  layers: string[];
  stdout: string;
  stderr: string;
  /** When it began, when it told of each layer, and when it ended, in milliseconds. */
  times: number[];
}

/** So many milliseconds after so many layers. */
interface Moment {
  layers: number;
  milliseconds: number;
}

const solved = /(model\.layers\.\S+): relative error/g;

/** Runs the job in a process of its own, to its end or to a moment. */
function run(out: string, samples: number, moment: Moment | null): Promise<Run> {
  const times = [performance.now()];
  const child = spawn(process.execPath, [
    program,
    ...job,
    ...calibration,
    ...short,
    '--samples',
    `${samples}`,
    '--out',
    out,
  ]);
  const said = { stdout: '', stderr: '' };
  let timer: NodeJS.Timeout | undefined;
  const killInTime = () => {
    if (moment && !timer && times.length > moment.layers)
      timer = setTimeout(() => child.kill('SIGKILL'), moment.milliseconds);
  };
  killInTime();
  for (const stream of ['stdout', 'stderr'] as const)
    child[stream].setEncoding('utf8').on('data', (text: string) => {
      said[stream] += text;
      for (const _ of text.matchAll(solved)) times.push(performance.now());
      killInTime();
    });
  return new Promise((resolve, reject) => {
    child.once('error', reject);
    child.once('close', (code, signal) => {
      clearTimeout(timer);
      const layers = [...said.stderr.matchAll(solved)].map(([, name]) => name!);
      resolve({ ...said, code, killed: signal === 'SIGKILL', layers, times: [...times, performance.now()] });
    });
  });
}

/** A run that nobody harms. @throws where it fails, with what it said */
async function wholeRun(out: string, samples: number): Promise<Run> {
  const whole = await run(out, samples, null);
  if (whole.code !== 0) throw failed('a job that nobody harmed', whole);
  return whole;
}

const failed = (which: string, { code, stderr }: Run) => new Error(`${which} ended with ${code}: ${stderr}`);

/** Some jobs end before they are killed, but not most of them. */
const attemptsPerKill = 4;

/**
 * Kills so many jobs with SIGKILL, each at a moment of its own, and runs each again. The stretches before, between and behind
 * the layers take turns, so that as many kills lie in each; a moment within one is drawn evenly from the time that it takes
 * an unharmed job.
 */
export async function* killJobs({ count, seed, samples }: Kills): AsyncGenerator<Kill> {
  const scratch = mkdtempSync(join(tmpdir(), 'lutra-kill-'));
  const random = new Random(seed);
  try {
    const whole = join(scratch, 'whole');
    await wholeRun(whole, samples);
    const { times } = await wholeRun(join(scratch, 'timed'), samples);
    let killed = 0;
    for (let attempts = 0; killed < count; attempts++) {
      if (attempts === attemptsPerKill * count) throw new Error(`${killed} of ${attempts} jobs were killed in time`);
      const parent = mkdtempSync(join(scratch, 'job-'));
      const out = join(parent, 'out');
      const layers = killed % (times.length - 1);
      const milliseconds = random.next() * (times[layers + 1]! - times[layers]!);
      const first = await run(out, samples, { layers, milliseconds });
      if (!first.killed && first.code !== 0) throw failed('a job that was not killed', first);
      if (first.killed) {
        killed += 1;
        yield { layers: first.layers.length, ...(await resume({ out, samples }, first, whole)) };
      }
      rmSync(parent, { recursive: true });
    }
  } finally {
    rmSync(scratch, { recursive: true, force: true });
  }
}

async function resume(
  { out, samples }: { out: string; samples: number },
  first: Run,
  whole: string,
): Promise<Omit<Kill, 'layers'>> {
  const faults: string[] = [];
  const blocks = existsSync(out) ? null : recordedBlocks(`${out}.partial/journal.json`);
  const done = blocks === null && !existsSync(`${out}.partial/journal.json`);
  const again = await run(out, samples, null);
  // Killed when nothing was left to do but to end: the job is through, and the same command refuses to overwrite it.
  const ended = done ? again.stderr.includes('LUTRA_E_EXISTS') : again.code === 0;
  if (!ended) faults.push(`ended with ${again.code}: ${again.stderr.split('\n').at(-2)}`);
  if (!done && again.code === 0) {
    const { resumedBlocks } = resultOf('quantize', again.stdout);
    if (resumedBlocks !== (blocks ?? 4)) faults.push(`took over ${resumedBlocks} blocks`);
  }
  const twice = new Set(again.layers.filter((name) => first.layers.includes(name)).map(blockOf));
  if (twice.size > 1) faults.push(`computed twice: blocks ${[...twice].join(', ')}`);
  if (blocks !== null) for (const block of twice) if (block !== blocks) faults.push(`computed block ${block} twice`);
  const left = readdirSync(join(out, '..'));
  if (left.join() !== 'out') faults.push(`left ${left.join(', ')}`);
  const [expected, found] = [filesOf(whole), filesOf(out)];
  for (const name of new Set([...expected.keys(), ...found.keys()]))
    if (!expected.get(name) || !found.get(name)?.equals(expected.get(name)!)) faults.push(`${name} differs`);
  return { blocks, faults };
}

const recordedBlocks = (journal: string): number =>
  existsSync(journal) ? JSON.parse(readFileSync(journal, 'utf8')).journal.blocks.length : 0;

const blockOf = (layer: string): number => Number(/\d+/.exec(layer)![0]);
