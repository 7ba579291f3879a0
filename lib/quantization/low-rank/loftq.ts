import { z } from 'zod';
import type { LowRank } from '../method.js';
import { pairOptions, requireUniform, stored } from './options.js';
import { alternateToFit } from './rounds.js';

const options = z.strictObject({
  ...pairOptions,
  /** Rounds of codes for what the pair leaves and a pair for what they leave. */
  rounds: z.int().min(1).max(1000).default(5),
});

export type LoftqOptions = z.infer<typeof options>;

/**
 * LoftQ (Li et al., arXiv 2310.08659, algorithm 1): codes and truncated singular value decompositions in turn, in the metric
 * of the weights themselves, ending on a decomposition.
 */
export const loftq: LowRank<LoftqOptions> = {
  name: 'loftq',
  options,
  needs: () => [],
  stored,
  checkSolver(solver, choice) {
    requireUniform('loftq', solver, choice);
  },
  async fit({ options: { rank, storage, rounds }, hessian: _, ...matrix }, call) {
    return await alternateToFit(matrix, { rank, storage, rounds, metric: undefined }, call);
  },
};
