import { lutraError } from '../errors.js';
import type { Solver } from './method.js';
import { bcq } from './solvers/bcq.js';
import { gptq } from './solvers/gptq.js';
import { hqq } from './solvers/hqq.js';
import { leanquant } from './solvers/leanquant.js';
import { rtn } from './solvers/rtn.js';

/** Every solver that a recipe may name. */
export const solvers: readonly Solver[] = [rtn, hqq, gptq, leanquant, bcq];

/** @throws `LUTRA_E_METHOD` where no solver has this name, with the names there are. */
export function findSolver(name: unknown, where = 'recipe.solver.method'): Solver {
  const solver = solvers.find((candidate) => candidate.name === name);
  if (solver) return solver;
  throw lutraError('LUTRA_E_METHOD', {
    message: 'no such quantization method',
    where,
    found: typeof name === 'string' ? `'${name}'` : String(name),
    expected: solvers.map((candidate) => `'${candidate.name}'`).join(' or '),
  });
}
