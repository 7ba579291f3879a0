import { z } from 'zod';
import { Tensor } from '../../tensor/index.js';
import type { Call, Solution, Solver, SolverInput } from '../method.js';
import { disposeOnFailure, fitGrid, roundToValues, valuesOf } from '../passes.js';
import {
  type CodedRows,
  type DampedHessian,
  descend,
  fitToCodes,
  offsetsOfGrid,
  pull,
  rowErrors,
  searchRange,
  takeBetterRows,
  tensorsOfRows,
  valuesOfRows,
} from '../passes-decoupleq.js';
import { columnPass } from './column-pass.js';
import { factorHessian, type HessianFactor } from './gptq-factor.js';
import { withoutDeadColumns } from './hessian.js';

const options = z.strictObject({
  /** Times that codes are chosen, at most; 1 is gptq on the grid over the group's range. */
  iterations: z.int().min(1).max(1000).default(4),
  /** Codes by gptq's pass, or by projected gradient descent, whose time grows with the third power of the columns. */
  rounding: z.enum(['gptq', 'gradient']).default('gptq'),
  /** Of the descent: steps before the first column is rounded and after every one, and their length in steps of the grid. */
  steps: z.int().min(0).max(100_000).default(200),
  innerSteps: z.int().min(0).max(1000).default(5),
  rate: z.number().gt(0).max(1).default(0.03),
  /** As gptq has them. */
  actOrder: z.boolean().default(true),
  damping: z.number().min(0).max(1).default(0.01),
  /** Hessians of a block's later layers from inputs that its quantized earlier layers give. */
  trueSequential: z.boolean().default(true),
});

export type DecoupleqOptions = z.infer<typeof options>;
type Input = SolverInput<DecoupleqOptions, HessianFactor>;

/** An iteration that betters less than this share of the rows is the last. */
const leastShare = 1e-4;

/**
 * The layer stage of decoupleQ (arXiv 2404.12759): codes, and scales with real offsets that are free of any range, are fitted
 * in turn for the least change of the layer's output. Codes by gptq's pass with the current levels, or by projected gradient
 * descent; scales and offsets of a row by least squares in closed form. A row only ever moves to what is better.
 */
export const decoupleq: Solver<DecoupleqOptions, HessianFactor> = {
  name: 'decoupleq',
  scope: 'matrix',
  storage: 'realOffset',
  // One factor, and the panels of its making: less of it the larger it is.
  work: () => ({ perWeight: 22, hessians: 1.3 }),
  symmetric: true,
  needs: () => ['hessian'],
  sequential: ({ trueSequential }) => trueSequential,
  options,
  async prepare(statistics, options, call) {
    return await factorHessian(statistics, options, { ...call, method: 'decoupleq' });
  },
  release({ factor }) {
    factor?.dispose();
  },
  async solve(input, call) {
    const { w, prepared } = input;
    const { factor, dead, damping, warnings } = prepared;
    const live = await withoutDeadColumns(w, prepared, call);
    try {
      const { codes, values } = await solveRows({ ...input, w: live }, call);
      return { codes, values, damping: factor ? damping : null, deadColumns: dead.length, warnings: [...warnings] };
    } finally {
      if (live !== w) live.dispose();
    }
  },
};

async function solveRows(input: Input, call: Call): Promise<Pick<Solution, 'codes' | 'values'>> {
  const { w, grid, prepared } = input;
  const start = await startValues(input, call);
  const values = valuesOfRows(start, grid);
  if (!prepared.factor) {
    const codes = await disposeOnFailure(valuesOf(values), () => roundToValues(w, values, grid, call));
    return { codes, values };
  }
  using diagonal = Tensor.copyOf(dampingOf(prepared));
  const best = await startRows(input, start, { hessian: prepared.hessian, diagonal }, call);
  try {
    await alternate(input, best, { hessian: prepared.hessian, diagonal }, call);
  } catch (error) {
    for (const tensor of tensorsOfRows(best)) tensor.dispose();
    throw error;
  }
  best.errors.dispose();
  return { codes: best.codes, values: valuesOfRows(best, grid) };
}

/** What the factor's Hessian has on its diagonal beyond the inputs' own: a dead column counts as one that is not coupled. */
function dampingOf({ diagonal, damping, meanDiagonal }: HessianFactor): Float64Array {
  return diagonal.map((h) => (h === 0 ? 1 : 0) + damping * meanDiagonal);
}

/** Scales and offsets of the grid over every group's range, as gptq's grid has them. */
async function startValues({ w, grid, scaleDtype }: Input, call: Call): Promise<Pick<CodedRows, 'scales' | 'offsets'>> {
  const [scales, zeros] = valuesOf(await fitGrid(w, grid, scaleDtype, 'none', call)) as [Tensor, Tensor];
  if (grid.symmetric) return { scales, offsets: zeros };
  return await disposeOnFailure([scales], async () => {
    using _ = zeros;
    return { scales, offsets: await offsetsOfGrid(scales, zeros, scaleDtype, call) };
  });
}

/** Codes of the start, or nearest ones in rows where those are better. Takes ownership of `start`. */
async function startRows(
  input: Input,
  start: Pick<CodedRows, 'scales' | 'offsets'>,
  metric: DampedHessian,
  call: Call,
): Promise<CodedRows> {
  const { w, grid } = input;
  const made: Tensor[] = [start.scales, start.offsets];
  return await disposeOnFailure(made, async () => {
    const values = valuesOfRows(start, grid);
    const codes = await codesFor(input, start, metric, call);
    made.push(codes);
    const errors = await rowErrors(w, codes, values, metric, grid, call);
    made.push(errors);
    const rows = { ...start, codes, errors };
    using nearest = await roundToValues(w, values, grid, call);
    using nearestErrors = await rowErrors(w, nearest, values, metric, grid, call);
    await takeBetterRows(rows, { ...start, codes: nearest, errors: nearestErrors }, call);
    return rows;
  });
}

/** Fits `best` to its codes, then betters its rows by the searched start and by new codes for the numbers they have. */
async function alternate(input: Input, best: CodedRows, metric: DampedHessian, call: Call): Promise<void> {
  const { w, grid, scaleDtype: dtype, options } = input;
  if (options.iterations === 1) return;
  using pulled = await pull(w, metric, call);
  const fit = { w, pulled, grid, dtype };
  await fitToCodes(fit, metric, best, call);
  for (let iteration = 1; iteration < options.iterations; iteration++) {
    const values = iteration === 1 ? await searchRange(w, metric, grid, dtype, call) : copyOf(best);
    const candidate = await coded(input, values, metric, call);
    try {
      await fitToCodes(fit, metric, candidate, call);
      const taken = await takeBetterRows(best, candidate, call);
      if (iteration > 1 && taken < leastShare * (w.shape[0] ?? 0)) return;
    } finally {
      for (const tensor of tensorsOfRows(candidate)) tensor.dispose();
    }
  }
}

const copyOf = ({ scales, offsets }: CodedRows): Pick<CodedRows, 'scales' | 'offsets'> => ({
  scales: Tensor.copyOf(scales.read(), scales.shape),
  offsets: Tensor.copyOf(offsets.read(), offsets.shape),
});

/** Codes for these values, errors not known yet. Takes ownership of the values. */
async function coded(
  input: Input,
  values: Pick<CodedRows, 'scales' | 'offsets'>,
  metric: DampedHessian,
  call: Call,
): Promise<CodedRows> {
  const codes = await disposeOnFailure([values.scales, values.offsets], () => codesFor(input, values, metric, call));
  return { ...values, codes, errors: Tensor.zeros('f64', [input.w.shape[0] ?? 0]) };
}

async function codesFor(
  { w, grid, scaleDtype: dtype, options, prepared }: Input,
  values: Pick<CodedRows, 'scales' | 'offsets'>,
  metric: DampedHessian,
  call: Call,
): Promise<Tensor> {
  if (options.rounding === 'gradient') return await descend(w, values, metric, { ...options, grid, dtype }, call);
  const { order, factor } = prepared as HessianFactor & { factor: Tensor };
  return await columnPass(w, valuesOfRows(values, grid), { order, factor }, grid, call);
}
