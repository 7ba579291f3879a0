import { Tensor } from '../tensor/index.js';
import type { Call, Grid, ScaleDtype, Solution, Storage, Values, Warning } from './method.js';
import type { Coded } from './pack.js';
import {
  disposeOnFailure,
  energy,
  fitGrid,
  gridPlanes,
  levelsOf,
  type Metric,
  quadraticForms,
  residual,
  roundToValues,
  valuesOf,
} from './passes.js';
import { offsetsOfGrid } from './passes-decoupleq.js';

/** A solution and its errors in the method's metric, relative to the matrix itself. */
export interface Measured {
  solution: Solution;
  relativeError: number;
  /** Of round to nearest with the same scales and offsets. */
  rtnError: number;
  /** What the errors are relative to. */
  energy: number;
}

/**
 * Measures a solution in the method's metric and, where that has a Hessian, beside it round to nearest: on the solution's own
 * levels, and, where the solver learns from the Hessian, on the grid that spans every group's values, stored in the same way.
 * Keeps the best of the three, on record where it is not the solution: compensation for other inputs than the Hessian's must
 * never cost. Takes ownership of the solution.
 */
export async function atLeastRounded(
  w: Tensor,
  solution: Solution,
  { grid, scaleDtype, learns }: { grid: Grid; scaleDtype: ScaleDtype; learns: boolean },
  metric: Metric,
  call: Call,
): Promise<Measured> {
  const owned = new Set(tensorsOf(solution));
  return await disposeOnFailure([{ dispose: () => disposeAll(owned) }], async () => {
    const whole = await energy(w, metric, call);
    const candidateOf = async (coded: Coded, name: string): Promise<Candidate> => {
      for (const tensor of tensorsOf(coded)) owned.add(tensor);
      const error = await distance(w, coded, grid, metric, call);
      return { coded, name, error: error === 0 ? 0 : error / whole };
    };
    const solved = await candidateOf(solution, 'the solution');
    if (!metric.hessian) return { solution, relativeError: solved.error, rtnError: solved.error, energy: whole };
    const { values } = solution;
    const rounded = await candidateOf(await nearest(w, values, grid, call), 'round to nearest with the same scales');
    let best = rounded.error < solved.error ? rounded : solved;
    const full = learns ? await spanningGrid(w, { grid, scaleDtype }, values.storage, call) : values;
    for (const tensor of valuesOf(full)) owned.add(tensor);
    if (!sameValues(full, values)) {
      const spanning = await candidateOf(await nearest(w, full, grid, call), 'round to nearest on the full range');
      if (spanning.error < best.error) best = spanning;
    }
    const { coded, error } = best;
    for (const tensor of tensorsOf(coded)) owned.delete(tensor);
    disposeAll(owned);
    const rtnError = coded.values === values ? rounded.error : error;
    const warnings = best === solved ? solution.warnings : [...solution.warnings, keptRounded(best, solved)];
    return { solution: { ...solution, ...coded, warnings }, relativeError: error, rtnError, energy: whole };
  });
}

/** Codes that might be kept, and their error. */
interface Candidate {
  coded: Coded;
  name: string;
  error: number;
}

const tensorsOf = ({ codes, values }: Coded): Tensor[] => [codes, ...valuesOf(values)];

function disposeAll(tensors: Iterable<Tensor>): void {
  for (const tensor of tensors) tensor.dispose();
}

const nearest = async (w: Tensor, values: Values, grid: Grid, call: Call): Promise<Coded> => ({
  codes: await roundToValues(w, values, grid, call),
  values,
});

/** Rows whose differences are in memory together; the last ones take a few more, so that none are so few as to add up otherwise. */
const rowsTogether = 1536;
const fewRows = 16;

async function distance(w: Tensor, { codes, values }: Coded, grid: Grid, metric: Metric, call: Call): Promise<number> {
  using levels = await levelsOf(values, grid, call);
  const [rows = 0] = w.shape;
  if (!metric.hessian || metric.rowHessian || rows <= rowsTogether + fewRows) {
    using difference = await residual(w, codes, levels, grid, call);
    return await energy(difference, metric, call);
  }
  using forms = Tensor.zeros('f64', [rows]);
  for (let begin = 0, end = 0; begin < rows; begin = end) {
    end = rows - begin <= rowsTogether + fewRows ? rows : begin + rowsTogether;
    using part = w.rows(begin, end);
    using partCodes = codes.rows(begin, end);
    using partLevels = levels.rows(begin, end);
    using partForms = forms.rows(begin, end);
    using difference = await residual(part, partCodes, partLevels, grid, call);
    await quadraticForms(difference, metric.hessian, partForms, call);
  }
  const sum = (forms.read() as Float64Array).reduce((total, form) => total + form, 0);
  return Math.max(0, sum);
}

/** The grid that round to nearest takes, rounded to what the storage holds. */
async function spanningGrid(
  w: Tensor,
  { grid, scaleDtype }: { grid: Grid; scaleDtype: ScaleDtype },
  storage: Storage,
  call: Call,
): Promise<Values> {
  const fitted = await fitGrid(w, grid, scaleDtype, 'none', call);
  if (storage === 'zeroCode') return fitted;
  const { scales, zeros } = fitted;
  using _ = zeros;
  const offsets = await disposeOnFailure([scales], () => offsetsOfGrid(scales, zeros, scaleDtype, call));
  if (storage === 'realOffset') return { storage, scales, offsets };
  using __ = scales;
  const [rows = 0, groups = 0] = scales.shape;
  const alphas = Tensor.zeros('f32', [rows, groups, grid.bits]);
  // Alphas are the scales times powers of two; offsets that are not rounded are not wanted.
  using exact = Tensor.zeros('f32', scales.shape);
  await disposeOnFailure([alphas, offsets], () => gridPlanes(scales, zeros, { alphas, offsets: exact }, call));
  return { storage, alphas, offsets };
}

function sameValues(a: Values, b: Values): boolean {
  const others = valuesOf(b);
  return valuesOf(a).every((tensor, i) => {
    const [x, y] = [tensor.read(), others[i]!.read()];
    return x.every((value, at) => value === y[at]);
  });
}

const keptRounded = ({ name, error }: Candidate, solved: Candidate): Warning => ({
  kind: 'keptRoundToNearest',
  message: `${name} has the smaller error, ${error} against ${solved.error}, and is kept`,
});
