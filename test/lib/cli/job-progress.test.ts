import { join } from 'node:path';
import { expect, test } from 'vitest';
import { JobProgress } from '../../../lib/cli/job-progress.js';
import { type Progress, quantizeModel } from '../../../lib/pipeline/index.js';
import { scratchDirectory, words, writeRandomModel } from '../pipeline/random-model.js';

const scratch = scratchDirectory();

test('the share of a job only grows, and ends at its end', async () => {
  const model = await writeRandomModel(join(scratch, 'model'));
  const calibration = { texts: [words(3000)], samples: 3, sequenceLength: 32 };
  const recipes = {
    rtn: { method: 'rtn', bits: 3, groupSize: 32 },
    sequential: { method: 'gptq', bits: 3, groupSize: 32, trueSequential: true },
    tuned: { method: 'rtn', bits: 3, groupSize: 32, finetune: [{ method: 'decoupleq-block' }] },
    allocated: { method: 'gptq', bits: 3, groupSize: 32, allocation: { bitsPerWeight: 5 } },
  };
  for (const [name, recipe] of Object.entries(recipes)) {
    const progress = new JobProgress();
    const shares: number[] = [];
    const onProgress = (event: Progress) => void shares.push(progress.follow(event).share);
    await quantizeModel({ model, out: join(scratch, name), recipe, calibration, onProgress });
    expect(shares).toEqual([...shares].sort((a, b) => a - b));
    expect(shares[0], name).toBe(0);
    expect(shares.at(-1), name).toBeGreaterThan(0.95);
    expect(shares.at(-1), name).toBeLessThan(1);
    // No step is most of the job.
    expect(Math.max(...shares.map((share, i) => share - (shares[i - 1] ?? 0))), name).toBeLessThan(0.5);
  }
});

test('what is left is known from the blocks that are through', () => {
  let now = 100;
  const progress = new JobProgress(() => now);
  const collect = (block: number) =>
    progress.follow({ phase: 'collect', block, blocks: 5, window: 1, windows: 2 }).secondsLeft;
  expect(collect(1)).toBeNull();
  now += 20;
  expect(collect(1)).toBeNull();
  now += 20;
  expect(collect(2)).toBe(4 * 40);
  now += 15;
  expect(collect(2)).toBe(4 * 40 - 15);
  now += 5;
  // The second block took 20 s: 30 on average.
  expect(collect(3)).toBe(3 * 30);
  now += 1000;
  expect(collect(3)).toBe(0);
});
