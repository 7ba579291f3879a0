import { lutraError } from '../../errors.js';
import { type Tensor, trianglePlace, triangleRows } from '../../tensor/index.js';
import { refuseNonFinite } from '../finite.js';
import type { Call, Statistics, Warning } from '../method.js';
import { gatherColumns, hessianDiagonal } from '../passes.js';

/** A Hessian and what its diagonal tells: the same for every matrix that reads this input. */
export interface HessianInspection {
  /** f64 [k, k], or a packed triangle. */
  hessian: Tensor;
  /** Its diagonal: how much each column's input weighs. */
  diagonal: Float64Array;
  /** Mean of the diagonal over columns that are not dead. */
  meanDiagonal: number;
  /** Columns whose input was never anything but zero. */
  dead: readonly number[];
  /** All of them are dead: there is nothing to learn, and weights are rounded to nearest as they are. */
  silent: boolean;
  warnings: readonly Warning[];
}

/**
 * The Hessian that a method needs, the sum over `tokens` inputs where that is known.
 *
 * @throws `LUTRA_E_OPTION` where there is none, `LUTRA_E_NON_FINITE` for a NaN or infinity in it, and
 *   `LUTRA_E_NOT_POSITIVE_DEFINITE` for a negative diagonal, which cannot come from inputs
 */
export async function inspectHessian(statistics: Statistics, method: string, call: Call): Promise<HessianInspection> {
  const hessian = await requireHessian(statistics, method, call);
  const { tokens = Number.POSITIVE_INFINITY } = statistics;
  const diagonal = await hessianDiagonal(hessian, call);
  const dead = deadColumns(diagonal, call);
  const live = diagonal.length - dead.length;
  const meanDiagonal = diagonal.reduce((sum, h) => sum + h, 0) / live;
  const inspected = { hessian, diagonal, meanDiagonal, dead, silent: live === 0 };
  if (inspected.silent) return { ...inspected, warnings: [silentInput()] };
  const warnings: Warning[] = dead.length ? [deadWarning(dead)] : [];
  if (tokens < live) warnings.push(fewTokens(tokens, live));
  return { ...inspected, warnings };
}

/** w with zeros in the columns whose input was never anything but zero; w itself where there are none, or all are. */
export async function withoutDeadColumns(
  w: Tensor,
  { dead, silent }: Pick<HessianInspection, 'dead' | 'silent'>,
  call: Call,
): Promise<Tensor> {
  if (!dead.length || silent) return w;
  const columns = Int32Array.from({ length: w.shape[1] ?? 0 }, (_, column) => column);
  for (const column of dead) columns[column] = -1;
  return await gatherColumns(w, columns, call);
}

async function requireHessian({ hessian }: Statistics, method: string, call: Call): Promise<Tensor> {
  if (!hessian)
    throw lutraError('LUTRA_E_OPTION', {
      message: `${method} needs the Hessian of the layer’s inputs`,
      where: call.where,
      hint: 'Pass statistics.hessian, or quantize the model with a calibration text.',
    });
  const hint = 'The activations that calibration saw are not finite, or their squares overflow.';
  const packed = (index: number) => trianglePlace(index, triangleRows(hessian));
  const place = hessian.shape.length === 1 ? packed : undefined;
  await refuseNonFinite(hessian, { ...call, where: placeOf(call) }, { what: 'the Hessian', hint, place });
  return hessian;
}

/** Of one head where the Hessian is. */
const placeOf = ({ where, head }: Call): string => (head === undefined ? where : `${where}, head ${head}`);

function deadColumns(diagonal: Float64Array, call: Call): number[] {
  const dead: number[] = [];
  diagonal.forEach((h, column) => {
    if (h < 0)
      throw lutraError('LUTRA_E_NOT_POSITIVE_DEFINITE', {
        message: `the Hessian's diagonal is negative at column ${column}`,
        where: placeOf(call),
        found: h,
      });
    if (h === 0) dead.push(column);
  });
  return dead;
}

const deadWarning = (dead: readonly number[]): Warning => ({
  kind: 'deadColumns',
  message: `${dead.length} input columns were zero for every calibration token; their weights are taken as zero`,
});
const fewTokens = (tokens: number, columns: number): Warning => ({
  kind: 'fewTokens',
  message: `${tokens} calibration tokens for ${columns} input columns: the Hessian has at most ${tokens} independent directions`,
});
const silentInput = (): Warning => ({
  kind: 'keptRoundToNearest',
  message: 'every input was zero for every calibration token; weights are rounded to nearest',
});
