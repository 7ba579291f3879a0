import { z } from 'zod';
import type { LowRank } from '../method.js';
import { pairOptions, requireUniform, stored } from './options.js';
import { alternateToFit } from './rounds.js';

const options = z.strictObject(pairOptions);

export type CorrectionOptions = z.infer<typeof options>;

/**
 * The plain correction: the solver's codes for w as they are, and beside them the pair that makes good most of what they
 * change in the layer's output, [(w - Q(w)) C]_r C⁻¹ with H = C Cᵀ.
 */
export const correction: LowRank<CorrectionOptions> = {
  name: 'correction',
  options,
  needs: () => ['hessian'],
  stored,
  checkSolver(solver, choice) {
    requireUniform('correction', solver, choice);
  },
  async fit({ options: { rank, storage }, hessian: metric, ...matrix }, call) {
    return await alternateToFit(matrix, { rank, storage, metric, rounds: 1 }, call);
  },
};
