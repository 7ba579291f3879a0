import { z } from 'zod';
import { Tensor } from '../../tensor/index.js';
import type { Call, Solver, SolverInput } from '../method.js';
import type { Coded } from '../pack.js';
import {
  bcqFit,
  bcqRefit,
  disposeOnFailure,
  energy,
  gatherColumns,
  levelsOf,
  residual,
  roundToValues,
  valuesOf,
} from '../passes.js';
import { columnPass } from './column-pass.js';
import { factorHessian, type HessianFactor } from './gptq-factor.js';
import { type HessianInspection, inspectHessian, withoutDeadColumns } from './hessian.js';

const options = z.strictObject({
  /** Rounds of least squares and nearest codes, at most; 0 is the start itself. */
  rounds: z.int().min(0).max(1000).default(15),
  /** Plane by plane from what is left, or from the uniform grid; `best` takes whichever ends better, group by group. */
  start: z.enum(['greedy', 'grid', 'best']).default('best'),
  /** Least squares in the metric of nothing, of the inputs' mean squares, or of the whole Hessian. */
  weighting: z.enum(['none', 'diagonal', 'hessian']).default('none'),
  /** Codes by GPTQ's column pass with every group's level set as the quantizer. */
  errorFeedback: z.boolean().default(false),
  /** With weighting `hessian`: refits of the planes to the codes, each followed by new codes, at most. */
  refits: z.int().min(0).max(100).default(4),
  /** As gptq has them. */
  actOrder: z.boolean().default(true),
  damping: z.number().min(0).max(1).default(0.01),
});

export type BcqOptions = z.infer<typeof options>;
/** What a use of the Hessian needs: its diagonal, or its factor too, the inspection with it. */
interface Prepared {
  inspected: HessianInspection;
  factored: HessianFactor | null;
}
type Input = SolverInput<BcqOptions, Prepared | null>;

/** A refit that gains less than this share of the error is the last. */
const leastGain = 1e-4;

/**
 * Binary-coding quantization, the format of LUT-GEMM (arXiv 2206.09557): an alpha for every plane of bits and an offset,
 * fitted by alternating least squares and nearest codes (Xu et al., arXiv 1802.00150). With a symmetric grid there is no
 * offset, as in the papers.
 */
export const bcq: Solver<BcqOptions, Prepared | null> = {
  name: 'bcq',
  scope: 'matrix',
  storage: 'planes',
  work: () => ({ perWeight: 11, hessians: 1 }),
  symmetric: true,
  needs: ({ weighting, errorFeedback }) => (weighting !== 'none' || errorFeedback ? ['hessian'] : []),
  options,
  async prepare(statistics, options, call) {
    if (!bcq.needs(options).length) return null;
    if (!options.errorFeedback && options.weighting !== 'hessian')
      return { inspected: await inspectHessian(statistics, 'bcq', call), factored: null };
    const factored = await factorHessian(statistics, options, { ...call, method: 'bcq' });
    return { inspected: factored, factored };
  },
  release(prepared) {
    prepared?.factored?.factor?.dispose();
  },
  async solve(input, call) {
    const { w, prepared } = input;
    const { dead = [], warnings = [] } = prepared?.inspected ?? {};
    const live = prepared ? await withoutDeadColumns(w, prepared.inspected, call) : w;
    try {
      const coded = await solvePlanes({ ...input, w: live }, call);
      const damping = prepared?.factored?.factor ? prepared.factored.damping : null;
      return { ...coded, damping, deadColumns: dead.length, warnings: [...warnings] };
    } finally {
      if (live !== w) live.dispose();
    }
  },
};

async function solvePlanes(input: Input, call: Call): Promise<Coded> {
  const { w, grid, scaleDtype, options, prepared } = input;
  using importance = importanceOf(input);
  const fit = { rounds: options.rounds, start: options.start, dtype: scaleDtype };
  const values = await bcqFit(w, importance, grid, fit, call);
  const codes = await disposeOnFailure(valuesOf(values), () => codesFor(input, values, call));
  const fitted = { codes, values };
  const factored = prepared?.factored;
  if (!factored?.factor || options.weighting !== 'hessian' || options.refits === 0) return fitted;
  return await refitted(input, factored, fitted, call);
}

function importanceOf({ w, options, prepared }: Input): Tensor {
  const columns = w.shape[1] ?? 0;
  const weighted = options.weighting !== 'none' && prepared && !prepared.inspected.silent;
  return Tensor.copyOf(weighted ? prepared.inspected.diagonal : new Float64Array(columns).fill(1));
}

async function codesFor({ w, grid, options, prepared }: Input, values: Coded['values'], call: Call): Promise<Tensor> {
  const { order, factor } = prepared?.factored ?? {};
  if (!order || !factor || !options.errorFeedback) return await roundToValues(w, values, grid, call);
  return await columnPass(w, values, { order, factor }, grid, call);
}

/** Refits planes and chooses codes in turn, in the Hessian's metric, as long as that gains. Takes ownership of `start`. */
async function refitted(input: Input, factored: HessianFactor, start: Coded, call: Call): Promise<Coded> {
  const { hessian } = factored;
  let best = start;
  try {
    let error = await errorOf(input, hessian, best, call);
    for (let refit = 0; refit < input.options.refits && error > 0; refit++) {
      const next = await nextRefit(input, factored, best, call);
      const found = await disposeOnFailure(tensorsOf(next), () => errorOf(input, hessian, next, call));
      const gained = found < error;
      const worse = gained ? best : next;
      for (const tensor of tensorsOf(worse)) tensor.dispose();
      if (!gained) break;
      best = next;
      if (found > error * (1 - leastGain)) break;
      error = found;
    }
    return best;
  } catch (failure) {
    for (const tensor of tensorsOf(best)) tensor.dispose();
    throw failure;
  }
}

/** The planes refitted to the codes, then new codes, where those are better. */
async function nextRefit(input: Input, factored: HessianFactor, coded: Coded, call: Call): Promise<Coded> {
  const { w, grid, scaleDtype: dtype } = input;
  const { hessian, damping, meanDiagonal } = factored;
  const planes = await copyOf(coded, call);
  const values = { storage: 'planes' as const, alphas: planes.alphas, offsets: planes.offsets };
  const metric = { hessian, damping: damping * meanDiagonal };
  return await disposeOnFailure(Object.values(planes), async () => {
    await bcqRefit(w, metric, planes, { grid, dtype }, call);
    const codes = await codesFor(input, values, call);
    const errors = await disposeOnFailure([codes], async () => [
      await errorOf(input, hessian, { codes: planes.codes, values }, call),
      await errorOf(input, hessian, { codes, values }, call),
    ]);
    const renewed = errors[1]! < errors[0]!;
    (renewed ? planes.codes : codes).dispose();
    return { codes: renewed ? codes : planes.codes, values };
  });
}

async function copyOf(
  { codes, values }: Coded,
  call: Call,
): Promise<{ codes: Tensor; alphas: Tensor; offsets: Tensor }> {
  const columns = Int32Array.from({ length: codes.shape[1] ?? 0 }, (_, column) => column);
  const [alphas, offsets] = valuesOf(values).map((tensor) => Tensor.copyOf(tensor.read(), tensor.shape)) as [
    Tensor,
    Tensor,
  ];
  const copied = await disposeOnFailure([alphas, offsets], () => gatherColumns(codes, columns, call));
  return { codes: copied, alphas, offsets };
}

async function errorOf({ w, grid }: Input, hessian: Tensor, { codes, values }: Coded, call: Call): Promise<number> {
  using levels = await levelsOf(values, grid, call);
  using difference = await residual(w, codes, levels, grid, call);
  return await energy(difference, { hessian }, call);
}

const tensorsOf = ({ codes, values }: Coded): Tensor[] => [codes, ...valuesOf(values)];
