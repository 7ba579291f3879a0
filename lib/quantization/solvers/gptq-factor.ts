import { LutraError, lutraError } from '../../errors.js';
import { Tensor, triangleElements } from '../../tensor/index.js';
import type { Call, Statistics, Warning } from '../method.js';
import { disposeOnFailure, prepareHessian, reverseCholesky } from '../passes.js';
import { type HessianInspection, inspectHessian } from './hessian.js';

/** What the column pass needs of a Hessian: the same for every matrix that reads this input. */
export interface HessianFactor extends HessianInspection {
  /** Columns in pass order. */
  order: Int32Array;
  /** A packed triangle, pass order: M upper triangular with damped H = M Mᵀ; null where no damping made H factor. */
  factor: Tensor | null;
  /** Share of the mean diagonal added to the diagonal. */
  damping: number;
}

/** Damping grows by this factor until the Hessian factors, up to the limit. */
const ladderStep = 10;
export const ladderLimit = 10;

/**
 * Permutes, damps and factors a Hessian, f64 [k, k] or a packed triangle.
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
  const order = diagonalOrder(diagonal, actOrder);
  const plain = { ...inspected, order, damping: share };
  if (inspected.silent) return { ...plain, factor: null };

  const factor = Tensor.zeros('f64', [triangleElements(diagonal.length)]);
  const climbed = await disposeOnFailure([factor], () => climb({ hessian, order, mean, share }, factor, call));
  const warnings = [...inspected.warnings, ...climbed.damped.map(raised)];
  if (climbed.damping !== null) return { ...plain, damping: climbed.damping, factor, warnings };
  factor.dispose();
  return { ...plain, factor: null, warnings: [...warnings, gaveUp()] };
}

/** A Hessian on its way to a factor. */
export interface Damped {
  hessian: Tensor;
  order: Int32Array;
  /** Mean of the diagonal, and the share of it that is added first. */
  mean: number;
  share: number;
}

/**
 * Factors with ever more damping, into `factor`.
 *
 * @returns the damping that did it, null where none did, and those that did not.
 */
export async function climb(
  { hessian, order, mean, share }: Damped,
  factor: Tensor,
  call: Call,
): Promise<{ damping: number | null; damped: readonly number[] }> {
  const damped: number[] = [];
  for (let damping = share; damping <= ladderLimit; damping = nextDamping(damping)) {
    requireDampable(damping * mean, call);
    await prepareHessian(hessian, order, damping * mean, factor, call);
    if (await factors(factor, call)) return { damping, damped };
    damped.push(damping);
  }
  return { damping: null, damped };
}

/** What may be added to a diagonal: beyond, inputs are so near to overflow that nothing is learnt from their squares. */
const largestDamping = 2 ** 53;

function requireDampable(added: number, { where }: Call): void {
  if (added <= largestDamping) return;
  throw lutraError('LUTRA_E_NON_FINITE', {
    message: 'the Hessian is too large to be damped: the inputs of this layer are near overflow',
    where,
    found: added,
    expected: `at most ${largestDamping} on the diagonal`,
    hint: 'Look at the weights of the layers before it, or take a method without Hessians.',
  });
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

/** Numbers of the diagonal's elements, the largest first and the first of equals first; or as they are. */
export function diagonalOrder(diagonal: Float64Array, actOrder: boolean): Int32Array {
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
