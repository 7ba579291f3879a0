import { z } from 'zod';
import type { Solver } from '../method.js';
import { disposeOnFailure, fitGrid, roundToValues, valuesOf } from '../passes.js';
import { columnPass } from './column-pass.js';
import { factorHessian, type HessianFactor } from './gptq-factor.js';
import { withoutDeadColumns } from './hessian.js';
import { clipSearch, gridSearch } from './rtn.js';

const options = z.strictObject({
  /** Columns with the largest Hessian diagonal first. */
  actOrder: z.boolean().default(true),
  /** Every group's grid comes from the original weights. The only kind there is: act-order needs it. */
  staticGroups: z
    .literal(true, 'this version has static groups only: grids refitted on compensated weights are not built')
    .default(true),
  /** Share of the mean diagonal added to the diagonal; raised tenfold where the Hessian does not factor. */
  damping: z.number().min(0).max(1).default(0.01),
  /** How the grids' ranges are searched; see rtn. */
  clipSearch: clipSearch.default(false),
  /** Hessians of a block's later layers from inputs that its quantized earlier layers give. */
  trueSequential: z.boolean().default(false),
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
  async solve({ w, prepared, grid, scaleDtype, options }, call) {
    const { factor, order, dead, damping, warnings } = prepared;
    const live = await withoutDeadColumns(w, prepared, call);
    try {
      const values = await fitGrid(live, grid, scaleDtype, gridSearch(options.clipSearch, prepared), call);
      const codes = await disposeOnFailure(valuesOf(values), () =>
        factor ? columnPass(live, values, { order, factor }, grid, call) : roundToValues(live, values, grid, call),
      );
      return { codes, values, damping: factor ? damping : null, deadColumns: dead.length, warnings: [...warnings] };
    } finally {
      if (live !== w) live.dispose();
    }
  },
};
