import { z } from 'zod';
import { Tensor } from '../../tensor/index.js';
import type { Call, Solver, SolverInput } from '../method.js';
import { disposeOnFailure, fitGrid, roundToValues, valuesOf } from '../passes.js';
import { learnRounding, refineScales } from '../row-passes.js';
import { columnPass } from './column-pass.js';
import { factorHessian, type HessianFactor } from './gptq-factor.js';
import { withoutDeadColumns } from './hessian.js';
import { factorRows } from './row-factors.js';
import { rowPass } from './row-pass.js';
import { clipSearch, gridSearch } from './rtn.js';

const damping = z.number().min(0).max(1).default(0.01);

/** aespa's learned rounding and its defaults. */
const aespa = z.strictObject({
  method: z.literal('aespa'),
  iterations: z.int().min(0).max(1_000_000).default(2000),
  learningRate: z.number().min(0).max(1).default(0.015),
  /** Weight of the pull to whole codes, in units of the error of one code in a weight of mean diagonal. */
  regularization: z.number().min(0).max(1000).default(1),
  /** Share of the iterations before the pull. */
  warmUp: z.number().min(0).max(1).default(0.2),
  /** The pull's power, first and last. */
  beta: z.tuple([z.number().min(1).max(100), z.number().min(1).max(100)]).default([20, 2]),
});

const options = z.strictObject({
  /** Columns with the largest Hessian diagonal first. */
  actOrder: z.boolean().default(true),
  /** Rows of a head with the largest diagonal of its row Hessian first. */
  actOrderRow: z.boolean().default(true),
  /** Rows of a head rounded together: 1 is BoA, 16 TurboBoA, the head's rows GPTQ. */
  rowBlock: z.int().min(1).default(1),
  /** TurboBoA: grids of a block of rows from its compensated weights. */
  adaptiveGrid: z.boolean().default(false),
  /** TurboBoA: scales fitted again to the codes. */
  refineScales: z.boolean().default(false),
  clipSearch: clipSearch.default('hessian'),
  damping,
  rowDamping: damping,
  /** Value projections by the Hessian of what each head's attention makes of the inputs. */
  headHessians: z.boolean().default(true),
  /** Value projections also by the output projection's row Hessian: in the paper, not in its results. */
  valueRowHessian: z.boolean().default(false),
  rounding: z.union([z.literal('none'), aespa], '"none" or { "method": "aespa", … } is needed').default('none'),
});

export type BoaOptions = z.infer<typeof options>;

/**
 * BoA (Kim et al., arXiv 2406.13474): GPTQ whose errors are also made good from row to row of an attention head, by what
 * they change in the head's output. With TurboBoA's blocks, grids and scales (arXiv 2602.04929) and the learned rounding of
 * aespa (arXiv 2402.08958) as options. Without a row Hessian it is GPTQ.
 */
export const boa: Solver<BoaOptions, HessianFactor> = {
  name: 'boa',
  scope: 'matrix',
  storage: 'zeroCode',
  // A factor and the panels of its making; learned rounding has the whole square in fp32, as large as the factor, beside it.
  work: ({ rounding }) => (rounding === 'none' ? { perWeight: 12, hessians: 1.3 } : { perWeight: 16, hessians: 2.3 }),
  symmetric: true,
  needs: ({ headHessians, valueRowHessian }) => [
    'hessian',
    'attention',
    ...(headHessians ? (['headHessians'] as const) : []),
    ...(valueRowHessian ? (['valueRows'] as const) : []),
  ],
  options,
  async prepare(statistics, options, call) {
    return await factorHessian(statistics, options, { ...call, method: 'boa' });
  },
  release({ factor }) {
    factor?.dispose();
  },
  async solve(input, call) {
    const { w, grid, scaleDtype, options, prepared, rowHessian } = input;
    const { factor, dead, damping, hessian, warnings } = prepared;
    const live = await withoutDeadColumns(w, prepared, call);
    try {
      if (!factor) {
        const values = await fitGrid(live, grid, scaleDtype, gridSearch(options.clipSearch, prepared), call);
        const codes = await disposeOnFailure(valuesOf(values), () => roundToValues(live, values, grid, call));
        return { codes, values, damping: null, deadColumns: dead.length, warnings: [...warnings] };
      }
      const learns = options.rounding !== 'none';
      using wanted = learns ? Tensor.zeros('f32', w.shape) : undefined;
      const passed = await pass({ ...input, w: live }, factor, call, wanted);
      const { codes, values } = passed;
      const problem = { w: live, codes, values, hessian, rowHessian };
      await disposeOnFailure([codes, ...valuesOf(values)], async () => {
        if (options.rounding !== 'none' && wanted) await learnRounding(problem, wanted, grid, options.rounding, call);
        if (options.refineScales) await refineScales(problem, grid, scaleDtype, call);
      });
      return { codes, values, damping, deadColumns: dead.length, warnings: [...warnings, ...passed.warnings] };
    } finally {
      if (live !== w) live.dispose();
    }
  },
};

/** The codes of the pass over columns, and over rows where there is a row Hessian. */
async function pass(
  { w, grid, scaleDtype, options, prepared, rowHessian }: SolverInput<BoaOptions, HessianFactor>,
  factor: Tensor,
  call: Call,
  wanted: Tensor | undefined,
) {
  const columns = { order: prepared.order, factor };
  const search = gridSearch(options.clipSearch, prepared);
  const fitRows = (rows: Tensor) => fitGrid(rows, grid, scaleDtype, search, call);
  if (!rowHessian) {
    const values = await fitRows(w);
    const round = () => columnPass(w, values, columns, grid, call, wanted);
    return { codes: await disposeOnFailure(valuesOf(values), round), values, warnings: [] };
  }
  const rows = await factorRows(rowHessian, { actOrder: options.actOrderRow, damping: options.rowDamping }, call);
  using _ = rows.factors;
  const { rowBlock, adaptiveGrid: adaptive } = options;
  const problem = { w, columns, rows, grid, rowBlock, fitRows, adaptive };
  return { ...(await rowPass(problem, call, wanted)), warnings: rows.warnings };
}
