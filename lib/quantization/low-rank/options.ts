import { z } from 'zod';
import { lutraError } from '../../errors.js';
import type { MethodChoice, Solver } from '../method.js';
import type { PairDtype } from '../pair.js';

/** What every low-rank method takes. The rank has no default: bits a weight depend on it as on `bits` and `groupSize`. */
export const pairOptions = {
  /** Columns of B and rows of A, at most the least dimension of any matrix. */
  rank: z.int().min(1),
  /** Element type of A and B; i8 has a scale for every row of either. */
  storage: z.enum(['f16', 'bf16', 'i8']).default('f16'),
};

export const stored = ({
  rank,
  storage,
}: {
  rank: number;
  storage: PairDtype;
}): { rank: number; dtype: PairDtype } => ({
  rank,
  dtype: storage,
});

/** @throws `LUTRA_E_OPTION` for a solver of binary planes, or of heads by themselves: a pair stands beside a whole uniform grid */
export function requireUniform(name: string, solver: Solver, choice: MethodChoice): void {
  if (solver.storage === 'planes') throw refused(name, `'${solver.name}'`, 'a solver of uniform grids');
  const { method: _, ...options } = choice;
  if (solver.needs(options).includes('headHessians'))
    throw refused(name, `'${solver.name}' with headHessians`, 'a solver of whole matrices');
}

/**
 * @throws `LUTRA_E_OPTION` for any solver but round to nearest on grids that span their groups: only there no weight is
 *   further from its code than half a step
 */
export function requirePlainRounding(name: string, { name: solver }: Solver, { clipSearch }: MethodChoice): void {
  if (solver !== 'rtn') throw refused(name, `'${solver}'`, "'rtn'");
  if (clipSearch !== false)
    throw refused(name, `rtn with clipSearch ${JSON.stringify(clipSearch)}`, 'clipSearch false');
}

const refused = (name: string, found: string, expected: string): Error =>
  lutraError('LUTRA_E_OPTION', {
    message: `${name} cannot use this solver`,
    where: 'recipe.lowRank.method',
    found,
    expected,
  });
