import { LutraError } from '../../errors.js';
import { Tensor } from '../../tensor/index.js';
import type { Call, Statistics, Warning } from '../method.js';
import { prepareHessian, reverseCholesky } from '../passes.js';
import { type HessianInspection, inspectHessian } from './hessian.js';

/** What the column pass needs of a Hessian: the same for every matrix that reads this input. */
export interface HessianFactor extends HessianInspection {
  /** Columns in pass order. */
  order: Int32Array;
  /** f64 [k, k], pass order: M upper triangular with damped H = M Mᵀ; null where no damping made H factor. */
  factor: Tensor | null;
  /** Share of the mean diagonal added to the diagonal. */
  damping: number;
}

/** Damping grows by this factor until the Hessian factors, up to the limit. */
const ladderStep = 10;
const ladderLimit = 10;

/**
 * Permutes, damps and factors a Hessian f64 [k, k].
 *
 * @throws what `inspectHessian` throws
 */
export async function factorHessian(
  statistics: Statistics,
  { actOrder, damping: share }: { actOrder: boolean; damping: number },
  call: Call & { method: string },
): Promise<HessianFactor> {
  const inspected = await inspectHessian(statistics, call.method, call);
  const { hessian, diagonal, meanDiagonal: mean } = inspected;
  const order = columnOrder(diagonal, actOrder);
  const plain = { ...inspected, order, damping: share };
  if (inspected.silent) return { ...plain, factor: null };

  const factor = Tensor.zeros('f64', hessian.shape);
  const warnings = [...inspected.warnings];
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

/** Columns by descending diagonal, the first of equals first; or as they are. */
function columnOrder(diagonal: Float64Array, actOrder: boolean): Int32Array {
  const order = Int32Array.from(diagonal.keys());
  return actOrder ? order.sort((a, b) => diagonal[b]! - diagonal[a]! || a - b) : order;
}

const raised = (damping: number): Warning => ({
  kind: 'dampingRaised',
  message: `the Hessian is not positive definite with damping ${damping}`,
});
const gaveUp = (): Warning => ({
  kind: 'keptRoundToNearest',
  message: `no damping up to ${ladderLimit} makes the Hessian positive definite; weights are rounded to nearest`,
});
