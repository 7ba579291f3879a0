import { expect, test } from 'vitest';
import { killJobs } from './kills.js';

// Under sanitizers its fourteen jobs take minutes, and would show nothing that other tests of theirs do not.
test.skipIf(process.env.LUTRA_SANITIZED === '1')(
  'a job that is killed at a random moment goes on to the same bytes',
  async () => {
    for await (const { layers, blocks, faults } of killJobs({ count: 6, seed: 1, samples: 4 }))
      expect(faults, `${layers} layers, ${blocks} blocks`).toEqual([]);
  },
);
