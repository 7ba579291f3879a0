import { z } from 'zod';
import type { Solver } from '../method.js';
import { disposeOnFailure, fitGrid, roundToValues, valuesOf } from '../passes.js';

const options = z.strictObject({
  /** Tries ranges down to a fifth of the full one and keeps the best by the 2.4-norm, instead of the full range. */
  clipSearch: z.boolean().default(false),
});

export type RtnOptions = z.infer<typeof options>;

/** Round to nearest: the grid spans every group's values (zero included), every weight takes the nearest code. */
export const rtn: Solver<RtnOptions, null> = {
  name: 'rtn',
  scope: 'matrix',
  storage: 'zeroCode',
  symmetric: true,
  needs: () => [],
  options,
  async prepare() {
    return null;
  },
  release() {},
  async solve({ w, grid, scaleDtype, options }, call) {
    const values = await fitGrid(w, grid, scaleDtype, options.clipSearch, call);
    const codes = await disposeOnFailure(valuesOf(values), () => roundToValues(w, values, grid, call));
    return { codes, values, damping: null, deadColumns: 0, warnings: [] };
  },
};
