import { LutraError, lutraError } from '../../errors.js';
import { Tensor } from '../../tensor/index.js';
import type { Call, Statistics, Warning } from '../method.js';
import { findNonFinite, hessianDiagonal, prepareHessian, reverseCholesky } from '../passes.js';

/** What the column pass needs of a Hessian: the same for every matrix that reads this input. */
export interface HessianFactor {
  hessian: Tensor;
  /** Its diagonal: how much each column's input weighs. */
  diagonal: Float64Array;
  /** Mean of the diagonal over columns that are not dead. */
  meanDiagonal: number;
  /** Columns in pass order. */
  order: Int32Array;
  /** Columns whose input was never anything but zero. */
  dead: readonly number[];
  /** f64 [k, k], pass order: M upper triangular with damped H = M Mᵀ; null where no damping made H factor. */
  factor: Tensor | null;
  /** Share of the mean diagonal added to the diagonal. */
  damping: number;
  warnings: Warning[];
}

/** Damping grows by this factor until the Hessian factors, up to the limit. */
const ladderStep = 10;
const ladderLimit = 10;

/**
 * The Hessian that a method needs.
 *
 * @throws `LUTRA_E_OPTION` where there is none, `LUTRA_E_NON_FINITE` for a NaN or infinity in it
 */
export async function requireHessian({ hessian }: Statistics, method: string, call: Call): Promise<Tensor> {
  if (!hessian)
    throw lutraError('LUTRA_E_OPTION', {
      message: `${method} needs the Hessian of the layer’s inputs`,
      where: call.where,
      hint: 'Pass statistics.hessian, or quantize the model with a calibration text.',
    });
  await checkFinite(hessian, call);
  return hessian;
}

/**
 * Permutes, damps and factors a Hessian f64 [k, k], the sum over `tokens` inputs where that is known.
 *
 * @throws what `requireHessian` throws, and `LUTRA_E_NOT_POSITIVE_DEFINITE` for a negative diagonal, which cannot come from
 *   inputs
 */
export async function factorHessian(
  statistics: Statistics,
  { actOrder, damping: share }: { actOrder: boolean; damping: number },
  call: Call & { method: string },
): Promise<HessianFactor> {
  const hessian = await requireHessian(statistics, call.method, call);
  const { tokens = Number.POSITIVE_INFINITY } = statistics;
  const diagonal = await hessianDiagonal(hessian, call);
  const dead = deadColumns(diagonal, call);
  const live = diagonal.length - dead.length;
  const mean = diagonal.reduce((sum, h) => sum + h, 0) / live;
  const order = columnOrder(diagonal, actOrder);
  const plain = { hessian, diagonal, meanDiagonal: mean, order, dead, damping: share };
  if (dead.length === diagonal.length) return { ...plain, factor: null, warnings: [silentInput()] };

  const factor = Tensor.zeros('f64', hessian.shape);
  const warnings: Warning[] = dead.length ? [deadWarning(dead)] : [];
  if (tokens < live) warnings.push(fewTokens(tokens, live));
  try {
    for (let damping = share; ; damping = nextDamping(damping)) {
      if (damping > ladderLimit) {
        factor.dispose();
        return { ...plain, factor: null, warnings: [...warnings, gaveUp()] };
      }
      await prepareHessian(hessian, order, damping * mean, factor, call);
      if (await factors(factor, call)) return { ...plain, damping, factor, warnings };
      warnings.push(raised(damping));
    }
  } catch (error) {
    factor.dispose();
    throw error;
  }
}

const nextDamping = (damping: number): number =>
  damping === 0 ? 0.01 : Number((damping * ladderStep).toPrecision(12));

async function factors(hessian: Tensor, call: Call): Promise<boolean> {
  try {
    await reverseCholesky(hessian, call);
    return true;
  } catch (error) {
    if (error instanceof LutraError && error.code === 'LUTRA_E_NOT_POSITIVE_DEFINITE') return false;
    throw error;
  }
}

async function checkFinite(hessian: Tensor, call: Call): Promise<void> {
  const index = await findNonFinite(hessian, call);
  if (index < 0) return;
  const k = hessian.shape[1] ?? 1;
  throw lutraError('LUTRA_E_NON_FINITE', {
    message: 'the Hessian holds a NaN or infinity',
    where: call.where,
    found: `index [${Math.floor(index / k)}, ${index % k}]`,
    hint: 'The activations that calibration saw are not finite.',
  });
}

function deadColumns(diagonal: Float64Array, call: Call): number[] {
  const dead: number[] = [];
  diagonal.forEach((h, column) => {
    if (h < 0)
      throw lutraError('LUTRA_E_NOT_POSITIVE_DEFINITE', {
        message: `the Hessian's diagonal is negative at column ${column}`,
        where: call.where,
        found: h,
      });
    if (h === 0) dead.push(column);
  });
  return dead;
}

/** Columns by descending diagonal, the first of equals first; or as they are. */
function columnOrder(diagonal: Float64Array, actOrder: boolean): Int32Array {
  const order = Int32Array.from(diagonal.keys());
  return actOrder ? order.sort((a, b) => diagonal[b]! - diagonal[a]! || a - b) : order;
}

const deadWarning = (dead: readonly number[]): Warning => ({
  kind: 'deadColumns',
  message: `${dead.length} input columns were zero for every calibration token; their weights are taken as zero`,
});
const fewTokens = (tokens: number, columns: number): Warning => ({
  kind: 'fewTokens',
  message: `${tokens} calibration tokens for ${columns} input columns: the Hessian has at most ${tokens} independent directions`,
});
const raised = (damping: number): Warning => ({
  kind: 'dampingRaised',
  message: `the Hessian is not positive definite with damping ${damping}`,
});
const gaveUp = (): Warning => ({
  kind: 'keptRoundToNearest',
  message: `no damping up to ${ladderLimit} makes the Hessian positive definite; weights are rounded to nearest`,
});
const silentInput = (): Warning => ({
  kind: 'keptRoundToNearest',
  message: 'every input was zero for every calibration token; weights are rounded to nearest',
});
