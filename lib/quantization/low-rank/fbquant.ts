import { z } from 'zod';
import type { Tensor } from '../../tensor/index.js';
import type { Call, LowRank, LowRankInput } from '../method.js';
import { fbquantDescend, Pair, roundPair, withoutPair } from '../pair.js';
import { valuesOf } from '../passes.js';
import { pairOptions, requirePlainRounding, stored } from './options.js';
import { alternate } from './rounds.js';

const options = z.strictObject({
  ...pairOptions,
  /** Of gradient descent. */
  steps: z.int().min(0).max(100_000).default(300),
  /** Of the first step, in units of what the pair's numbers are going to be; falls to zero along half a cosine. */
  rate: z.number().positive().max(10).default(0.1),
  /** `alternation`: the best of a few rounds of alternation; `random`: B of zeros and a random A, as LoRA starts. */
  start: z.enum(['alternation', 'random']).default('alternation'),
});

export type FbquantOptions = z.infer<typeof options>;

const startRounds = 10;

/**
 * FBQuant (arXiv 2501.16385): the quantizer sees what the pair leaves, w ~ Q(w - B A) + B A, so no weight ends further from
 * its original than half a step of the grid, and the pair follows the gradient of tr(E H Eᵀ) with the quantizer held. What is
 * not in the paper's abstract, the optimiser above all, is lutra's own.
 */
export const fbquant: LowRank<FbquantOptions> = {
  name: 'fbquant',
  options,
  needs: () => ['hessian'],
  stored,
  checkSolver(solver, choice) {
    requirePlainRounding('fbquant', solver, choice);
  },
  async fit(input, call) {
    const { w, grid, scaleDtype, options, solve } = input;
    const { storage, steps, rate } = options;
    const hessian = input.hessian as Tensor;
    const pair = await startPair(input, call);
    try {
      const descent = { grid, scaleDtype, storage, steps, rate, random: options.start === 'random' };
      const taken = await fbquantDescend(w, hessian, pair, descent, call);
      using rounded = await roundPair(pair, storage, call);
      using rest = await withoutPair(w, rounded, call);
      return { solution: await solve(rest), pair, ...taken };
    } catch (error) {
      pair.dispose();
      throw error;
    }
  },
};

async function startPair(input: LowRankInput<FbquantOptions>, call: Call): Promise<Pair> {
  const { rank, storage, start } = input.options;
  if (start === 'random') return Pair.zeros(input.w.shape, rank);
  const rounds = { rank, storage, rounds: startRounds, metric: input.hessian };
  const { solution, pair } = await alternate(input, rounds, call);
  if (solution !== input.plain) for (const tensor of [solution.codes, ...valuesOf(solution.values)]) tensor.dispose();
  return pair;
}
