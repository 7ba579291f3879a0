import { z } from 'zod';
import type { LowRank } from '../method.js';
import { pairOptions, requireUniform, stored } from './options.js';
import { alternate } from './rounds.js';

const options = z.strictObject({
  ...pairOptions,
  /** At most; four in a row that do not lower the error are the last. */
  rounds: z.int().min(1).max(1000).default(20),
});

export type AlternationOptions = z.infer<typeof options>;

/**
 * Alternation in the manner of SVDQuant (arXiv 2411.05007), with its decompositions in the metric of the layer's inputs: the
 * pair is fitted to what the codes leave, the codes to what the pair leaves, and the best round is kept.
 */
export const alternation: LowRank<AlternationOptions> = {
  name: 'alternation',
  options,
  needs: () => ['hessian'],
  stored,
  checkSolver(solver, choice) {
    requireUniform('alternation', solver, choice);
  },
  async fit({ options: { rank, storage, rounds }, hessian: metric, ...matrix }, call) {
    return await alternate(matrix, { rank, storage, rounds, metric }, call);
  },
};
