import { expect, test } from 'vitest';
import { killJobs } from './kills.js';

test('a job that is killed at a random moment goes on to the same bytes', async () => {
  for await (const { layers, blocks, faults } of killJobs({ count: 6, seed: 1, samples: 4 }))
    expect(faults, `${layers} layers, ${blocks} blocks`).toEqual([]);
});
