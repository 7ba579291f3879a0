import { z } from 'zod';
import { lutraError } from '../../errors.js';
import type { Tensor } from '../../tensor/index.js';
import type { Call, Solver, SolverInput } from '../method.js';
import {
  disposeOnFailure,
  fitGrid,
  type GridValues,
  gatherColumns,
  gptqPass,
  groupColumns,
  roundToGrid,
} from '../passes.js';
import { factorHessian, type HessianFactor } from './gptq-factor.js';

const options = z.strictObject({
  /** Columns with the largest Hessian diagonal first. */
  actOrder: z.boolean().default(true),
  /** Every group's grid comes from the original weights. The only kind there is: act-order needs it. */
  staticGroups: z
    .literal(true, 'this version has static groups only: grids refitted on compensated weights are not built')
    .default(true),
  /** Share of the mean diagonal added to the diagonal; raised tenfold where the Hessian does not factor. */
  damping: z.number().min(0).max(1).default(0.01),
  /** Grids by clip search instead of the full range; see rtn. */
  clipSearch: z.boolean().default(false),
});

export type GptqOptions = z.infer<typeof options>;

/**
 * GPTQ (Frantar et al., arXiv 2210.17323) in its inverse-free form: column after column, each rounding error is made good
 * by the columns that follow, as the Hessian of the layer's inputs weighs them.
 */
export const gptq: Solver<GptqOptions, HessianFactor> = {
  name: 'gptq',
  scope: 'matrix',
  needs: ['hessian'],
  options,
  async prepare({ hessian, tokens }, options, call) {
    if (!hessian)
      throw lutraError('LUTRA_E_OPTION', {
        message: 'gptq needs the Hessian of the layer’s inputs',
        where: call.where,
        hint: 'Pass statistics.hessian, or quantize the model with a calibration text.',
      });
    return await factorHessian({ hessian, tokens }, options, call);
  },
  release({ factor }) {
    factor?.dispose();
  },
  async solve(input, call) {
    const { w, prepared, grid, scaleDtype, options } = input;
    const { factor, dead, damping, warnings } = prepared;
    const clipped = options.clipSearch;
    if (!factor) {
      const values = await fitGrid(w, grid, scaleDtype, clipped, call);
      const { scales, zeros } = values;
      const codes = await disposeOnFailure([scales, zeros], () => roundToGrid(w, values, grid, call));
      return { codes, ...values, damping: null, deadColumns: dead.length, warnings };
    }
    const live = await withoutDeadColumns(w, dead, call);
    try {
      const values = await fitGrid(live, grid, scaleDtype, clipped, call);
      const { scales, zeros } = values;
      const pass = () => columnPass(live, values, prepared.order, factor, input, call);
      const codes = await disposeOnFailure([scales, zeros], pass);
      return { codes, ...values, damping, deadColumns: dead.length, warnings };
    } finally {
      if (live !== w) live.dispose();
    }
  },
};

async function withoutDeadColumns(w: Tensor, dead: readonly number[], call: Call): Promise<Tensor> {
  if (!dead.length) return w;
  const columns = Int32Array.from({ length: w.shape[1] ?? 0 }, (_, column) => column);
  for (const column of dead) columns[column] = -1;
  return await gatherColumns(w, columns, call);
}

/** Codes u8 [m, k] in the original order of columns. */
async function columnPass(
  w: Tensor,
  values: GridValues,
  order: Int32Array,
  factor: Tensor,
  { grid, options }: SolverInput<GptqOptions, HessianFactor>,
  call: Call,
): Promise<Tensor> {
  const columns = groupColumns(grid, order.length);
  const groupOf = order.map((column) => Math.floor(column / columns));
  if (!options.actOrder) return await gptqPass({ w, factor, groupOf, values }, grid, call);
  using ordered = await gatherColumns(w, order, call);
  using codes = await gptqPass({ w: ordered, factor, groupOf, values }, grid, call);
  const back = new Int32Array(order.length);
  order.forEach((column, position) => {
    back[column] = position;
  });
  return await gatherColumns(codes, back, call);
}
