import { z } from 'zod';
import { LutraError, type LutraErrorCode, lutraError } from '../errors.js';
import { issueText } from '../formats/index.js';
import type { Allocation } from './allocation.js';
import type { Grid, MethodChoice, Storage } from './method.js';
import { globProblem, type Override } from './overrides.js';
import { findMethod, findSolver, finetunes, lowRanks, solvers, transforms } from './registry.js';

/** How a model is quantized, in the one form that everything stores: the command line, the checkpoint and the manifest. */
export interface Recipe {
  /** In the order in which they are applied. */
  transforms: MethodChoice[];
  solver: MethodChoice;
  grid: Grid;
  /** In the order in which they are applied. */
  finetune: MethodChoice[];
  lowRank: MethodChoice | null;
  overrides: Override[];
  /** Chooses the layers' widths within a budget; null gives every layer the grid's. */
  allocation: Allocation | null;
}

/** A recipe as it may be written: the full form, or `{ method, bits, groupSize, … }` with the method's options beside. */
export type RecipeInput =
  | Partial<Recipe>
  | { method: string; bits: number; groupSize: number; [option: string]: unknown };

const bits = z.literal([2, 3, 4]);
const groupSize = z.int().refine((n) => n === -1 || n === 16 || (n >= 32 && n % 32 === 0));
const gridSchema = z.strictObject({ bits, groupSize, symmetric: z.boolean().default(false) });
const overrideSchema = z.strictObject({
  match: z.string(),
  bits: bits.optional(),
  groupSize: groupSize.optional(),
  symmetric: z.boolean().optional(),
});
const allocationSchema = z.strictObject({
  bitsPerWeight: z.number().min(1).max(64),
  widths: z
    .array(bits)
    .min(1)
    .default([2, 3, 4])
    .transform((widths) => [...new Set(widths)].sort((a, b) => a - b)),
});
const fullKeys = ['transforms', 'solver', 'grid', 'finetune', 'lowRank', 'overrides', 'allocation'];
const gridKeys = ['bits', 'groupSize', 'symmetric'];

/**
 * Checks a recipe and writes it out in full, with every default. A normalised recipe passes unchanged.
 *
 * @throws `LUTRA_E_METHOD`, `LUTRA_E_BITS`, `LUTRA_E_GROUP_SIZE`, and `LUTRA_E_OPTION` for every other key or value that is
 *   not understood, with its path.
 */
export function normalizeRecipe(input: unknown): Recipe {
  if (!isShort(input)) return normalizeFull(isRecord(input) ? input : notAnObject(input));
  const full = expand(input);
  try {
    return normalizeFull(full);
  } catch (error) {
    // As its writer has it.
    if (!(error instanceof LutraError) || !error.where) throw error;
    throw error.at(error.where.replace(/^recipe\.(?:grid|solver)\b/, 'recipe'));
  }
}

function normalizeFull(written: Record<string, unknown>): Recipe {
  for (const key of Object.keys(written)) if (!fullKeys.includes(key)) throw unknownKey(`recipe.${key}`, fullKeys);
  const solver = choice(solvers, written.solver, 'recipe.solver');
  const finetune = choices(finetunes, written.finetune, 'recipe.finetune');
  const lowRank = written.lowRank == null ? null : choice(lowRanks, written.lowRank, 'recipe.lowRank');
  const grid = parse(gridSchema, written.grid, 'recipe.grid');
  const overrides = parse(z.array(overrideSchema), written.overrides ?? [], 'recipe.overrides').map(tidyOverride);
  const { symmetric, storage } = findSolver(solver.method);
  if (!symmetric) refuseSymmetric(solver.method, { grid, overrides });
  storageAfter(storage, finetune);
  if (lowRank) findMethod(lowRanks, lowRank.method, 'recipe.lowRank').checkSolver(findSolver(solver.method), solver);
  return {
    transforms: inOrder(choices(transforms, written.transforms, 'recipe.transforms')),
    solver,
    grid,
    finetune,
    lowRank,
    overrides,
    allocation: written.allocation == null ? null : parse(allocationSchema, written.allocation, 'recipe.allocation'),
  };
}

/** How the groups' values are stored that leave a recipe's last stage. */
export function storageOf({ solver, finetune }: Pick<Recipe, 'solver' | 'finetune'>): Storage {
  return storageAfter(findSolver(solver.method).storage, finetune);
}

const storageAfter = (storage: Storage, finetune: readonly MethodChoice[]): Storage =>
  finetune.reduce(
    (before, { method }) => findMethod(finetunes, method, 'recipe.finetune').storageAfter(before),
    storage,
  );

/** A method's name with all of its options. */
function choice(
  methods: readonly { name: string; options: z.ZodType<unknown> }[],
  value: unknown,
  where: string,
): MethodChoice {
  if (!isRecord(value)) throw option(where, 'an object with a method is needed', describe(value));
  const { method: name, ...options } = value;
  const method = findMethod(methods, name, where);
  return { method: method.name, ...parse(method.options as z.ZodType<Record<string, unknown>>, options, where) };
}

function choices(methods: Parameters<typeof choice>[0], value: unknown, where: string): MethodChoice[] {
  if (value === undefined) return [];
  if (!Array.isArray(value)) throw option(where, 'a list of methods is needed', describe(value));
  return value.map((one, index) => choice(methods, one, `${where}.${index}`));
}

/** Transforms of blocks see their weights as those of the whole model left them. */
function inOrder(chosen: MethodChoice[]): MethodChoice[] {
  const scopes = chosen.map(({ method }) => findMethod(transforms, method, 'recipe.transforms').scope);
  const late = scopes.lastIndexOf('model');
  if (!scopes.includes('block') || late < scopes.indexOf('block')) return chosen;
  throw option(`recipe.transforms.${late}`, `${chosen[late]?.method} must come before transforms of blocks`);
}

/** A choice without its name: what the method's functions take. */
export const optionsOf = ({ method: _, ...options }: MethodChoice): unknown => options;

/** Whether a recipe is `{ method, bits, groupSize, … }`. */
const isShort = (input: unknown): input is Record<string, unknown> =>
  isRecord(input) && 'method' in input && !('solver' in input);

function notAnObject(input: unknown): never {
  throw option('recipe', 'a recipe is an object', describe(input));
}

/** Turns the shorthand into the full form. */
function expand(input: Record<string, unknown>): Record<string, unknown> {
  if ('grid' in input) throw option('recipe.grid', 'the short form has bits and groupSize at the top', 'grid');
  const full: Record<string, unknown> = { solver: {}, grid: {} };
  for (const [key, value] of Object.entries(input)) {
    const meant = gridKeys.find((known) => known !== key && known.toLowerCase() === key.toLowerCase());
    if (meant) throw unknownKey(`recipe.${key}`, [meant]);
    if (fullKeys.includes(key)) full[key] = value;
    else (full[gridKeys.includes(key) ? 'grid' : 'solver'] as Record<string, unknown>)[key] = value;
  }
  return full;
}

function refuseSymmetric(method: string, { grid, overrides }: Pick<Recipe, 'grid' | 'overrides'>): void {
  const at = overrides.findIndex(({ symmetric }) => symmetric);
  if (grid.symmetric || at >= 0)
    throw option(
      grid.symmetric ? 'recipe.grid.symmetric' : `recipe.overrides.${at}.symmetric`,
      `${method} has no symmetric grids`,
      'true',
      'false',
    );
}

function tidyOverride(override: z.infer<typeof overrideSchema>, index: number): Override {
  const where = `recipe.overrides.${index}`;
  const problem = globProblem(override.match);
  if (problem) throw option(`${where}.match`, problem, `'${override.match}'`);
  const { match, ...numbers } = override;
  const said = Object.entries(numbers).filter(([, value]) => value !== undefined);
  if (!said.length) throw option(where, 'the override changes nothing', undefined, gridKeys.join(', '));
  return { match, ...Object.fromEntries(said) };
}

function parse<T>(schema: z.ZodType<T>, value: unknown, where: string): T {
  const result = schema.safeParse(value);
  if (result.success) return result.data;
  const known = schema instanceof z.ZodObject ? Object.keys(schema.shape) : undefined;
  throw issueError(result.error.issues[0]!, value, where, known);
}

/** The typed error for what zod found first. */
function issueError(issue: z.core.$ZodIssue, root: unknown, where: string, known?: readonly string[]): Error {
  const path = [where, ...issue.path.map(String)].join('.');
  if (issue.code === 'unrecognized_keys')
    return unknownKey(`${path}.${issue.keys[0]}`, issue.path.length ? undefined : known);
  const found = describe(issue.path.reduce<unknown>((at, key) => (at as Record<PropertyKey, unknown>)?.[key], root));
  const last = issue.path.at(-1);
  if (last === 'bits') return fault('LUTRA_E_BITS', path, 'unusable width', found, '2, 3 or 4');
  if (last === 'groupSize')
    return fault(
      'LUTRA_E_GROUP_SIZE',
      path,
      'unusable group size',
      found,
      '16, a multiple of 32, or -1 for the whole row',
    );
  const { message, expected } = issueText(issue);
  return option(path, message, found, expected);
}

const unknownKey = (path: string, known?: readonly string[]): Error =>
  option(path, 'unknown key', undefined, known?.join(', '));
const option = (where: string, message: string, found?: string, expected?: string): Error =>
  fault('LUTRA_E_OPTION', where, message, found, expected);

function fault(code: LutraErrorCode, where: string, message: string, found?: string, expected?: string): Error {
  return lutraError(code, { message, where, found, expected });
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function describe(value: unknown): string {
  if (value === undefined) return 'nothing';
  const text = typeof value === 'number' ? String(value) : (JSON.stringify(value) ?? String(value));
  return text.length > 120 ? `${text.slice(0, 117)}...` : text;
}
