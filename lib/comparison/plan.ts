import { LutraError, lutraError } from '../errors.js';
import { needsCalibration } from '../pipeline/index.js';
import { normalizeRecipe, type Recipe } from '../quantization/index.js';
import type { Failure } from './comparison.js';

/** A recipe as a person names it; one without width or group size is run with each of the sweep's. */
export interface NamedRecipe {
  name: string;
  recipe: unknown;
}

export interface Sweep {
  recipes: readonly NamedRecipe[];
  bits: readonly number[];
  groupSizes: readonly number[];
  /** Of the calibration windows; recipes that need no text run once. */
  seeds: readonly number[];
}

/** One job of a comparison. */
export interface PlannedRun {
  name: string;
  /** Name and scheme, such as `gptq W3g64`; the runs of all seeds share it. */
  label: string;
  seed: number | null;
  /** Null where the recipe is none: the error says why. */
  recipe: Recipe | null;
  error: Failure | null;
}

/**
 * Every run of a sweep, the recipes in their order, then widths, group sizes and seeds in theirs. A recipe that cannot be used
 * is a run that has failed already.
 *
 * @throws `LUTRA_E_OPTION` where there is nothing to run, and where two recipes would have the same label
 */
export function planRuns({ recipes, bits, groupSizes, seeds }: Sweep): PlannedRun[] {
  for (const [name, list] of Object.entries({ recipes, bits, groupSizes, seeds }))
    if (list.length === 0)
      throw lutraError('LUTRA_E_OPTION', { message: 'nothing to compare', where: `compare.${name}` });
  const runs = recipes.flatMap(({ name, recipe }) =>
    schemesOf(recipe, bits, groupSizes).flatMap((scheme) => runsOf(name, scheme, seeds)),
  );
  const seen = new Set<string>();
  for (const { label, seed } of runs) {
    const key = `${label}, seed ${seed}`;
    if (seen.has(key))
      throw lutraError('LUTRA_E_OPTION', {
        message: 'two recipes, widths, group sizes or seeds are the same',
        where: 'compare.recipes',
        found: key,
        hint: 'Recipe files are called by their names without folder and ending.',
      });
    seen.add(key);
  }
  return runs;
}

interface Scheme {
  recipe: unknown;
  bits: unknown;
  groupSize: unknown;
}

/** A recipe with every width and group size that it leaves open. */
function schemesOf(recipe: unknown, widths: readonly number[], sizes: readonly number[]): Scheme[] {
  if (!isRecord(recipe)) return [{ recipe, bits: widths[0], groupSize: sizes[0] }];
  const short = 'method' in recipe && !('solver' in recipe);
  const said = short ? recipe : isRecord(recipe.grid) ? recipe.grid : {};
  const orSwept = (value: unknown, swept: readonly number[]): readonly unknown[] =>
    value === undefined ? swept : [value];
  return orSwept(said.bits, widths).flatMap((bits) =>
    orSwept(said.groupSize, sizes).map((groupSize) => {
      const grid = { ...said, bits, groupSize };
      return { recipe: short ? grid : { ...recipe, grid }, bits, groupSize };
    }),
  );
}

function runsOf(name: string, { recipe, bits, groupSize }: Scheme, seeds: readonly number[]): PlannedRun[] {
  const label = `${name} W${bits}g${groupSize}`;
  try {
    const full = normalizeRecipe(recipe);
    const own = needsCalibration(full) ? seeds : [null];
    return own.map((seed) => ({ name, label, seed, recipe: full, error: null }));
  } catch (error) {
    if (!(error instanceof LutraError)) throw error;
    const { code, message } = error;
    return [{ name, label, seed: null, recipe: null, error: { code, message } }];
  }
}

const isRecord = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value);
