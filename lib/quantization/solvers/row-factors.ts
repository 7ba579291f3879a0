import { Tensor } from '../../tensor/index.js';
import type { Call, Warning } from '../method.js';
import { disposeOnFailure } from '../passes.js';
import { climb, diagonalOrder, ladderLimit } from './gptq-factor.js';
import { inspectHessian } from './hessian.js';

/** What row feedback needs of the row Hessians of a matrix. */
export interface RowFactors {
  /** f64 [heads, d, d], pass order: M upper triangular with a head's damped row Hessian = M Mᵀ. */
  factors: Tensor;
  /** Rows of the matrix in pass order: the first row of every head, then the second of every head, and so on. */
  rows: Int32Array;
  warnings: readonly Warning[];
}

/**
 * Orders, damps and factors row Hessians f64 [heads, d, d]. Rows that a Hessian says nothing of stay by themselves; a head
 * whose Hessian no damping makes positive definite has rows without feedback, on record.
 *
 * @throws what `inspectHessian` throws
 */
export async function factorRows(
  rowHessian: Tensor,
  { actOrder, damping: share }: { actOrder: boolean; damping: number },
  call: Call,
): Promise<RowFactors> {
  const [heads, d] = rowHessian.shape as [number, number];
  const factors = Tensor.zeros('f64', rowHessian.shape);
  const rows = new Int32Array(heads * d);
  const warnings: Warning[] = [];
  await disposeOnFailure([factors], async () => {
    for (let head = 0; head < heads; head++) {
      using hessian = headOf(rowHessian, head);
      using factor = headOf(factors, head);
      const { diagonal, meanDiagonal, silent } = await inspectHessian({ hessian }, 'boa', placeOf(call, head));
      const order = diagonalOrder(diagonal, actOrder);
      order.forEach((row, position) => {
        rows[position * heads + head] = head * d + row;
      });
      const mean = silent ? 0 : meanDiagonal;
      const { damping, damped } = await climb({ hessian, order, mean, share }, factor, call);
      warnings.push(...damped.map((tried) => raised(call.head ?? head, tried)));
      if (damping !== null) continue;
      factor.write(identity(d));
      warnings.push(gaveUp(call.head ?? head));
    }
  });
  return { factors, rows, warnings };
}

/** Where the rows are one head's, it is that head's only one. */
function placeOf(call: Call, head: number): Call {
  return { ...call, where: `${call.where}, row Hessian`, head: call.head ?? head };
}

function headOf(matrices: Tensor, head: number): Tensor {
  const [, d = 0] = matrices.shape;
  using one = matrices.rows(head, head + 1);
  return one.reshape([d, d]);
}

function identity(d: number): Float64Array {
  const matrix = new Float64Array(d * d);
  for (let i = 0; i < d; i++) matrix[i * (d + 1)] = 1;
  return matrix;
}

const raised = (head: number, damping: number): Warning => ({
  kind: 'dampingRaised',
  message: `the row Hessian of head ${head} is not positive definite with damping ${damping}`,
});
const gaveUp = (head: number): Warning => ({
  kind: 'rowHessianUnused',
  message: `no damping up to ${ladderLimit} makes the row Hessian of head ${head} positive definite; its rows are independent`,
});
