/**
 * Fuzzes the readers: every input must end in a value or in a LutraError, within a second and without memory out of
 * proportion. `--reader all|NAME --count N --seconds S --seed N --first N`; an input that breaks the rule is kept in
 * --keep (build/fuzz) and named with the arguments that make it again.
 */
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { Worker } from 'node:worker_threads';
import { LutraError } from '../../../lib/errors.js';
import { fuzzed } from './mutate.js';
import { type Reader, readers } from './readers.js';

const { values } = parseArgs({
  options: {
    reader: { type: 'string', default: 'all' },
    count: { type: 'string', default: '1000000' },
    seconds: { type: 'string', default: '0' },
    seed: { type: 'string', default: '1' },
    first: { type: 'string', default: '0' },
    keep: { type: 'string', default: 'build/fuzz' },
  },
});
const seed = Number(values.seed);
const slowest = 1000;
const mostMemory = 256 * 2 ** 20;

/** The watch sees a reader that never comes back, which this thread cannot: it says which input and ends the process. */
const beat = new BigInt64Array(new SharedArrayBuffer(8));
const watch = `
  const { workerData: beat } = require('node:worker_threads');
  let before = -1n;
  setInterval(() => {
    const now = Atomics.load(beat, 0);
    if (now === before && now >= 0n) {
      process._rawDebug('input ' + now + ' takes longer than 30 s');
      process.kill(process.pid, 'SIGKILL');
    }
    before = now;
  }, 30000);
`;

interface Tally {
  inputs: number;
  read: number;
  refused: Map<string, number>;
  slowest: number;
  memory: number;
}

// What a library leaves out with a line on the console is not what the file says.
let printed: string | null = null;
console.warn = (...line: unknown[]) => {
  printed = line.join(' ');
};

async function campaign(name: string, { seeds, read }: Reader, count: number, seconds: number): Promise<Tally> {
  const tally: Tally = { inputs: 0, read: 0, refused: new Map(), slowest: 0, memory: 0 };
  const first = Number(values.first);
  const deadline = seconds > 0 ? performance.now() + seconds * 1000 : Number.POSITIVE_INFINITY;
  for (const bytes of seeds) await read(bytes);
  let memoryBefore = process.memoryUsage.rss();
  for (let index = first; index < first + count; index++) {
    const input = fuzzed(seeds, seed, index);
    Atomics.store(beat, 0, BigInt(index));
    const begin = performance.now();
    try {
      const result = read(input);
      if (result instanceof Promise) await result;
      tally.read++;
    } catch (error) {
      if (!(error instanceof LutraError)) fail(name, index, input, error);
      const { code } = error as LutraError;
      tally.refused.set(code, (tally.refused.get(code) ?? 0) + 1);
    }
    const end = performance.now();
    if (printed !== null) fail(name, index, input, `it made the console say: ${printed}`);
    tally.inputs++;
    // A machine that did something else meanwhile is not the reader's fault: the processor's time decides.
    const milliseconds = end - begin > slowest ? await again(() => read(input)) : end - begin;
    tally.slowest = Math.max(tally.slowest, milliseconds);
    if (milliseconds > slowest) fail(name, index, input, `it took ${Math.round(milliseconds)} ms`);
    if (index % 1024 === 0 || end - begin > 50) {
      const memory = process.memoryUsage.rss();
      // What the first inputs take is the code of the reader itself, compiled.
      if (index - first <= 1024) memoryBefore = memory;
      tally.memory = Math.max(tally.memory, memory - memoryBefore);
      if (tally.memory > mostMemory) fail(name, index, input, `memory grew by ${tally.memory} bytes`);
      if (end > deadline) break;
    }
  }
  Atomics.store(beat, 0, -1n);
  return tally;
}

/** Milliseconds of the processor that the work takes when it is done once more. */
async function again(work: () => unknown): Promise<number> {
  const before = process.cpuUsage();
  await Promise.resolve()
    .then(work)
    .catch(() => {});
  const { user, system } = process.cpuUsage(before);
  return (user + system) / 1000;
}

function fail(name: string, index: number, input: Uint8Array, why: unknown): never {
  const path = join(values.keep, `${name}-${seed}-${index}`);
  mkdirSync(values.keep, { recursive: true });
  writeFileSync(path, input);
  console.error(`${name}: input ${index} is at fault, kept as ${path}:`, why);
  console.error(`again: --reader ${name} --seed ${seed} --first ${index} --count 1`);
  process.exit(1);
}

const chosen = values.reader === 'all' ? Object.keys(readers) : values.reader.split(',');
const worker = new Worker(watch, { eval: true, workerData: beat });
worker.unref();
for (const name of chosen) {
  const reader = readers[name];
  if (!reader) throw new Error(`no such reader: ${name}; there are ${Object.keys(readers).join(', ')}`);
  const begin = performance.now();
  const tally = await campaign(name, reader, Number(values.count), Number(values.seconds) / chosen.length);
  const { inputs, read, refused, slowest: ms, memory } = tally;
  const codes = [...refused].map(([code, times]) => `${code.replace('LUTRA_E_', '')} ${times}`).join(', ');
  const seconds = (performance.now() - begin) / 1000;
  console.log(
    `${name}: ${inputs} inputs in ${seconds.toFixed(1)} s, ${read} read, refused: ${codes}; ` +
      `slowest ${ms.toFixed(1)} ms, memory +${(memory / 2 ** 20).toFixed(0)} MiB`,
  );
  if (inputs >= 1000 && (read === 0 || refused.size === 0)) throw new Error(`${name}: all inputs end alike`);
}
