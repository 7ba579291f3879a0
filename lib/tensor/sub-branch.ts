import { lutraError } from '../errors.js';
import type { Dtype, Tensor } from './tensor.js';

/**
 * A low-rank pair beside a packed matrix: the matrix that a QuantizedTensor stands for is its packed weights plus B · A.
 * Both are f16 or bf16, or i8 with one f32 scale a row.
 */
export interface SubBranch {
  /** [rank, inFeatures] */
  readonly a: Tensor;
  /** [outFeatures, rank], of the same element type. */
  readonly b: Tensor;
  /** f32 [rank]: what the codes of each row of `a` are multiplied with; null unless they are i8. */
  readonly aScales: Tensor | null;
  /** f32 [outFeatures]: the same for `b`. */
  readonly bScales: Tensor | null;
}

/** A pair as callers give it: without scales there need be no field for them. */
export interface SubBranchTensors {
  readonly a: Tensor;
  readonly b: Tensor;
  readonly aScales?: Tensor | null | undefined;
  readonly bScales?: Tensor | null | undefined;
}

export const completePair = ({ a, b, aScales = null, bScales = null }: SubBranchTensors): SubBranch => ({
  a,
  b,
  aScales,
  bScales,
});

export const subBranchDtypes: readonly Dtype[] = ['f16', 'bf16', 'i8'];

export const rankOf = ({ a }: SubBranch): number => a.shape[0] ?? 0;

export function subBranchTensors({ a, b, aScales, bScales }: SubBranch): Tensor[] {
  return [a, b, aScales, bScales].filter((tensor) => tensor !== null);
}

/** @throws `LUTRA_E_SHAPE` where no matrix [rows, cols] has a pair of this rank. */
export function checkRank(rank: number, rows: number, cols: number, where: string): void {
  if (Number.isSafeInteger(rank) && rank >= 1 && rank <= Math.min(rows, cols)) return;
  throw lutraError('LUTRA_E_SHAPE', {
    message: 'a sub-branch has a rank of at least 1 and at most that of its matrix',
    where,
    found: rank,
    expected: `1 to ${Math.min(rows, cols)}`,
  });
}

/** @throws `LUTRA_E_SHAPE`, `LUTRA_E_DTYPE` where the pair does not fit a matrix [rows, cols] or itself. */
export function checkSubBranch(pair: SubBranch, rows: number, cols: number, where: string): void {
  const { a, b, aScales, bScales } = pair;
  const rank = rankOf(pair);
  checkRank(rank, rows, cols, `${where}.a`);
  checkOne(a, subBranchDtypes, [rank, cols], `${where}.a`);
  checkOne(b, [a.dtype], [rows, rank], `${where}.b`);
  const scaled = a.dtype === 'i8';
  for (const [name, scales, count] of [
    ['aScales', aScales, rank],
    ['bScales', bScales, rows],
  ] as const) {
    if ((scales !== null) !== scaled)
      throw lutraError('LUTRA_E_DTYPE', {
        message: scaled ? 'i8 rows need their scales' : 'scales belong to i8 rows only',
        where: `${where}.${name}`,
      });
    if (scales) checkOne(scales, ['f32'], [count], `${where}.${name}`);
  }
}

function checkOne(tensor: Tensor, dtypes: readonly Dtype[], shape: readonly number[], where: string): void {
  if (!dtypes.includes(tensor.dtype))
    throw lutraError('LUTRA_E_DTYPE', {
      message: 'wrong element type',
      where,
      found: tensor.dtype,
      expected: dtypes.join(' or '),
    });
  if (`${tensor.shape}` !== `${shape}`)
    throw lutraError('LUTRA_E_SHAPE', {
      message: 'wrong shape',
      where,
      found: `[${tensor.shape}]`,
      expected: `[${shape}]`,
    });
}
