import { z } from 'zod';
import type { Call, Solver, SolverInput } from '../method.js';
import type { Coded } from '../pack.js';
import { disposeOnFailure, fitGrid, gptqDynamicPass, roundToValues, valuesOf } from '../passes.js';
import { columnPass } from './column-pass.js';
import { factorHessian, type HessianFactor } from './gptq-factor.js';
import { withoutDeadColumns } from './hessian.js';
import { clipSearch, gridSearch } from './rtn.js';

const options = z
  .strictObject({
    /** Columns with the largest Hessian diagonal first. */
    actOrder: z.boolean().default(true),
    /** Every group's grid comes from the original weights; else from what they have become when the pass enters the group. */
    staticGroups: z.boolean().default(true),
    /** Share of the mean diagonal added to the diagonal; raised tenfold where the Hessian does not factor. */
    damping: z.number().min(0).max(1).default(0.01),
    /** How the grids' ranges are searched; see rtn. */
    clipSearch: clipSearch.default(false),
    /** Hessians of a block's later layers from inputs that its quantized earlier layers give. */
    trueSequential: z.boolean().default(false),
  })
  .refine(({ staticGroups, actOrder }) => staticGroups || !actOrder, {
    message: 'act-order needs static groups: columns of one group do not follow each other',
    path: ['actOrder'],
  })
  .refine(({ staticGroups, clipSearch }) => staticGroups || clipSearch !== 'hessian', {
    message: 'dynamic groups have no clip search in the metric of the Hessian',
    path: ['clipSearch'],
  });

export type GptqOptions = z.infer<typeof options>;

/**
 * GPTQ (Frantar et al., arXiv 2210.17323) in its inverse-free form: column after column, each rounding error is made good
 * by the columns that follow, as the Hessian of the layer's inputs weighs them.
 */
export const gptq: Solver<GptqOptions, HessianFactor> = {
  name: 'gptq',
  scope: 'matrix',
  storage: 'zeroCode',
  // One factor, and the panels of its making: less of it the larger it is.
  work: () => ({ perWeight: 11, hessians: 1.3 }),
  symmetric: true,
  needs: () => ['hessian'],
  sequential: ({ trueSequential }) => trueSequential,
  options,
  async prepare(statistics, options, call) {
    return await factorHessian(statistics, options, { ...call, method: 'gptq' });
  },
  release({ factor }) {
    factor?.dispose();
  },
  async solve(input, call) {
    const { w, prepared } = input;
    const { factor, dead, damping, warnings } = prepared;
    const live = await withoutDeadColumns(w, prepared, call);
    try {
      const coded = await solveLive({ ...input, w: live }, call);
      return { ...coded, damping: factor ? damping : null, deadColumns: dead.length, warnings: [...warnings] };
    } finally {
      if (live !== w) live.dispose();
    }
  },
};

async function solveLive(
  { w, prepared, grid, scaleDtype: dtype, options }: SolverInput<GptqOptions, HessianFactor>,
  call: Call,
): Promise<Coded> {
  const { factor, order } = prepared;
  if (factor && !options.staticGroups)
    return await gptqDynamicPass(w, factor, { grid, dtype, search: options.clipSearch === true }, call);
  const values = await fitGrid(w, grid, dtype, gridSearch(options.clipSearch, prepared), call);
  const codes = await disposeOnFailure(valuesOf(values), () =>
    factor ? columnPass(w, values, { order, factor }, grid, call) : roundToValues(w, values, grid, call),
  );
  return { codes, values };
}
