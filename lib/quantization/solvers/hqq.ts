import { z } from 'zod';
import type { Solver } from '../method.js';
import { disposeOnFailure, hqqFit, roundToValues, valuesOf } from '../passes.js';

const options = z.strictObject({
  /** At most; the first that does not lower the mean magnitude of the error is the last. */
  iterations: z.int().min(0).max(1000).default(20),
  /** The power of the error that is made small: below 1, few large errors count less than many small ones. */
  norm: z.number().gt(0).max(1).default(0.7),
  /** Weight of the split, in units of weight^(norm - 2). */
  beta: z.number().gt(0).max(1e12).default(10),
  /** Growth of beta in an iteration. */
  kappa: z.number().min(1).max(10).default(1),
});

export type HqqOptions = z.infer<typeof options>;

/**
 * Half-quadratic quantization (Badri and Shaji, 2023): the scale spans the group, the offset is a real number that makes
 * the error sparse. Looks at the weights alone.
 */
export const hqq: Solver<HqqOptions, null> = {
  name: 'hqq',
  scope: 'matrix',
  storage: 'realOffset',
  work: () => ({ perWeight: 11.5, hessians: 1 }),
  symmetric: false,
  needs: () => [],
  options,
  async prepare() {
    return null;
  },
  release() {},
  async solve({ w, grid, scaleDtype, options }, call) {
    const values = await hqqFit(w, grid, options, scaleDtype, call);
    const codes = await disposeOnFailure(valuesOf(values), () => roundToValues(w, values, grid, call));
    return { codes, values, damping: null, deadColumns: 0, warnings: [] };
  },
};
