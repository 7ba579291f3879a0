import { existsSync, readdirSync } from 'node:fs';
import { expect, test } from 'vitest';
import { loadModel, nativeMemory } from '../../../lib/index.js';
import { memoryAtRest } from '../../memory-at-rest.js';
import { withTinyModel } from '../../tiny-checkpoint.js';

// docs/reliability.md tells of ten thousand.
const rounds = Number(process.env.LUTRA_LOAD_ROUNDS ?? (process.env.LUTRA_SANITIZED ? 200 : 3000));
/** Pages and arenas come in leaps, a leak is in both halves. */
const half = rounds / 2;

test(`a model loaded and disposed of ${rounds} times leaves no memory behind`, {
  timeout: 60_000 + rounds * 100,
}, async () => {
  await withTinyModel({}, async (dir) => {
    const state = async () => {
      const native = await memoryAtRest();
      const { heapUsed, external, rss } = process.memoryUsage();
      const descriptors = existsSync('/proc/self/fd') ? readdirSync('/proc/self/fd').length : 0;
      return { native, heap: heapUsed + external, rss, descriptors };
    };
    const load = async (times: number) => {
      for (let round = 0; round < times; round++) {
        const model = await loadModel(dir);
        model.dispose();
      }
      return await state();
    };
    const warm = await load(Math.min(half, 1000));
    const middle = await load(half);
    const end = await load(half);
    expect([middle.native, end.native, nativeMemory()]).toEqual([warm.native, warm.native, warm.native]);
    expect(end.descriptors).toBe(warm.descriptors);
    const total = (of: 'heap' | 'rss') => ((end[of] - warm[of]) / 2 ** 20).toFixed(2);
    if (process.env.LUTRA_LOAD_ROUNDS)
      console.log(
        `${rounds} rounds: JavaScript's memory grew by ${total('heap')} MiB, resident by ${total('rss')} MiB`,
      );
    // A sanitizer keeps freed blocks back for a while.
    if (process.env.LUTRA_SANITIZED) return;
    // The engine keeps up to 70 bytes a round of its own: a leak of 150 besides is seen.
    expect(end.heap - warm.heap).toBeLessThan(200 * rounds);
    // This tells only what is much larger than 100 bytes a round, or very many rounds.
    expect(Math.min(middle.rss - warm.rss, end.rss - middle.rss)).toBeLessThan(2 ** 21 + 100 * half);
  });
});
