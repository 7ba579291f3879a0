import { z } from 'zod';
import type { Solver } from '../method.js';
import { disposeOnFailure, fitGrid, type GridSearch, roundToValues, valuesOf } from '../passes.js';
import { type HessianInspection, inspectHessian, withoutDeadColumns } from './hessian.js';

/**
 * How a grid's range is searched: not at all; down to a fifth of the full one for the smallest 2.4-norm of the error; or
 * down to a hundredth, with two zeros each, for the smallest error in the metric of the inputs' Hessian.
 */
export const clipSearch = z.union([z.boolean(), z.literal('hessian')], 'false, true or "hessian" is needed');

export function gridSearch(option: z.infer<typeof clipSearch>, inspected: HessianInspection | null): GridSearch {
  if (option === 'hessian' && inspected && !inspected.silent) return { hessian: inspected.hessian };
  return option === true ? 'norm' : 'none';
}

const options = z.strictObject({ clipSearch: clipSearch.default(false) });

export type RtnOptions = z.infer<typeof options>;

/** Round to nearest: the grid spans every group's values (zero included), every weight takes the nearest code. */
export const rtn: Solver<RtnOptions, HessianInspection | null> = {
  name: 'rtn',
  scope: 'matrix',
  storage: 'zeroCode',
  work: () => ({ perWeight: 11, hessians: 1 }),
  symmetric: true,
  needs: ({ clipSearch }) => (clipSearch === 'hessian' ? ['hessian'] : []),
  options,
  async prepare(statistics, { clipSearch }, call) {
    return clipSearch === 'hessian' ? await inspectHessian(statistics, 'rtn with clipSearch "hessian"', call) : null;
  },
  release() {},
  async solve({ w, grid, scaleDtype, options, prepared }, call) {
    const live = prepared ? await withoutDeadColumns(w, prepared, call) : w;
    try {
      const values = await fitGrid(live, grid, scaleDtype, gridSearch(options.clipSearch, prepared), call);
      const codes = await disposeOnFailure(valuesOf(values), () => roundToValues(live, values, grid, call));
      const { dead = [], warnings = [] } = prepared ?? {};
      return { codes, values, damping: null, deadColumns: dead.length, warnings: [...warnings] };
    } finally {
      if (live !== w) live.dispose();
    }
  },
};
