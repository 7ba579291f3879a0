import { lutraError } from '../errors.js';
import { decoupleqBlock } from './finetune/decoupleq-block.js';
import { alternation } from './low-rank/alternation.js';
import { correction } from './low-rank/correction.js';
import { fbquant } from './low-rank/fbquant.js';
import { loftq } from './low-rank/loftq.js';
import type { Finetune, LowRank, Solver, Transform } from './method.js';
import { bcq } from './solvers/bcq.js';
import { boa } from './solvers/boa.js';
import { decoupleq } from './solvers/decoupleq.js';
import { gptq } from './solvers/gptq.js';
import { hqq } from './solvers/hqq.js';
import { leanquant } from './solvers/leanquant.js';
import { rtn } from './solvers/rtn.js';
import { awq } from './transforms/awq.js';
import { hadamard } from './transforms/hadamard.js';

/** Every method that a recipe may name, by its slot. */
export const transforms: readonly Transform[] = [hadamard, awq];
export const solvers: readonly Solver[] = [rtn, hqq, gptq, leanquant, bcq, decoupleq, boa];
export const finetunes: readonly Finetune[] = [decoupleqBlock];
export const lowRanks: readonly LowRank[] = [correction, loftq, alternation, fbquant];

/** @throws `LUTRA_E_METHOD` where no method of the list has this name, with the names there are. */
export function findMethod<T extends { readonly name: string }>(
  methods: readonly T[],
  name: unknown,
  where: string,
): T {
  const method = methods.find((candidate) => candidate.name === name);
  if (method) return method;
  throw lutraError('LUTRA_E_METHOD', {
    message: 'no such quantization method',
    where: `${where}.method`,
    found: typeof name === 'string' ? `'${name}'` : JSON.stringify(name)?.slice(0, 120),
    expected: methods.map((candidate) => `'${candidate.name}'`).join(' or ') || 'none: this version has none of these',
  });
}

export const findSolver = (name: unknown): Solver => findMethod(solvers, name, 'recipe.solver');
