import { setTimeout as sleep } from 'node:timers/promises';
import { Bench } from 'tinybench';
import { lutraError } from '../errors.js';

/** A burst lasts until it has both so many calls and so many milliseconds. */
export interface BurstLength {
  calls: number;
  milliseconds: number;
}

/** One call that is not measured (it finds cold caches and sleeping threads), then the calls of the burst. */
const options = ({ calls, milliseconds }: BurstLength) => ({
  iterations: calls,
  time: milliseconds,
  warmupIterations: 1,
  warmupTime: 0,
  retainSamples: true,
  throws: true,
});

/** Times a call that returns when its work is done. Milliseconds of every call. */
export function burst(call: () => void, length: BurstLength): number[] {
  const runner = new Bench(options(length)).add('call', call, { async: false });
  runner.runSync();
  return samplesOf(runner);
}

/** Times a call whose promise settles when its work is done. */
export async function asyncBurst(call: () => Promise<unknown>, length: BurstLength): Promise<number[]> {
  // What the call resolves with is none of the runner's business.
  const settle = async () => void (await call());
  const runner = new Bench(options(length)).add('call', settle, { async: true });
  await runner.run();
  return samplesOf(runner);
}

/** Long enough for every idle lane of the pool to fall asleep. */
const idleMilliseconds = 5;

/** Times calls each of which is the first after a pause. */
export async function idleBurst(call: () => void, { calls }: BurstLength): Promise<number[]> {
  const length = { calls, milliseconds: 0 };
  const pause = async () => void (await sleep(idleMilliseconds));
  const runner = new Bench(options(length)).add('call', call, { async: false, beforeEach: pause });
  await runner.run();
  return samplesOf(runner);
}

function samplesOf(runner: Bench): number[] {
  const result = runner.tasks[0]?.result;
  if (result?.state === 'completed' && result.latency.samples) return [...result.latency.samples];
  throw lutraError('LUTRA_E_INTERNAL', { message: `the benchmark did not complete: ${result?.state}`, where: 'burst' });
}
