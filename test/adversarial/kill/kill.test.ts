import { expect, test } from 'vitest';
import { killJobs } from './kills.js';

test('a job that is killed at a random moment goes on to the same bytes', async () => {
  for await (const { after, blocks, faults } of killJobs({ count: 6, seed: 1, samples: 4 }))
    expect(faults, `${blocks} blocks after ${after} ms`).toEqual([]);
});
