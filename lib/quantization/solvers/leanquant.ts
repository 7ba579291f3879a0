import { z } from 'zod';
import { Tensor } from '../../tensor/index.js';
import type { Call, Solver } from '../method.js';
import { disposeOnFailure, fitGrid, hessianDiagonal, roundToValues, valuesOf } from '../passes.js';
import { columnPass } from './column-pass.js';
import { factorHessian, type HessianFactor } from './gptq-factor.js';
import { withoutDeadColumns } from './hessian.js';

const options = z.strictObject({
  /** Power of M_jj, whose square is a column's salience, in the grid search; 0 counts all columns alike. */
  exponent: z.number().min(0).max(16).default(4),
  /** As gptq has them; the paper damps tenfold. */
  actOrder: z.boolean().default(true),
  damping: z.number().min(0).max(1).default(0.1),
});

export type LeanQuantOptions = z.infer<typeof options>;

/**
 * LeanQuant (Zhang and Shrivastava, arXiv 2407.10032) with uniform grids: GPTQ's pass, on grids that are fine where errors
 * cost most. What an error in column j costs after all later columns have made good what they can is 1 / U_jj², U the upper
 * Cholesky factor of the inverse Hessian: that is the column's salience, and M_jj² of the factor at hand.
 */
export const leanquant: Solver<LeanQuantOptions, HessianFactor> = {
  name: 'leanquant',
  scope: 'matrix',
  storage: 'zeroCode',
  // One factor, and the panels of its making: less of it the larger it is.
  work: () => ({ perWeight: 11, hessians: 1.3 }),
  symmetric: true,
  needs: () => ['hessian'],
  options,
  async prepare(statistics, options, call) {
    return await factorHessian(statistics, options, { ...call, method: 'leanquant' });
  },
  release({ factor }) {
    factor?.dispose();
  },
  async solve({ w, prepared, grid, scaleDtype, options }, call) {
    const { factor, order, dead, damping, warnings } = prepared;
    const live = await withoutDeadColumns(w, prepared, call);
    try {
      using importance = factor && (await importanceOf(factor, order, options.exponent, call));
      const values = await fitGrid(live, grid, scaleDtype, importance ? { importance } : 'none', call);
      const codes = await disposeOnFailure(valuesOf(values), () =>
        factor ? columnPass(live, values, { order, factor }, grid, call) : roundToValues(live, values, grid, call),
      );
      return { codes, values, damping: factor ? damping : null, deadColumns: dead.length, warnings: [...warnings] };
    } finally {
      if (live !== w) live.dispose();
    }
  },
};

/** f64 [k], columns as in w: M_jj to the power, relative to the largest. */
async function importanceOf(factor: Tensor, order: Int32Array, exponent: number, call: Call): Promise<Tensor> {
  const pivots = await hessianDiagonal(factor, call);
  const largest = pivots.reduce((most, pivot) => Math.max(most, pivot), 0);
  const importance = new Float64Array(order.length);
  order.forEach((column, position) => {
    importance[column] = (pivots[position]! / largest) ** exponent;
  });
  return Tensor.copyOf(importance);
}
