import type { Grid } from './method.js';

/** Other numbers for the layers whose name matches. */
export interface Override {
  /**
   * A glob on the layer's name as the checkpoint has it, with or without its `.weight`: `*` stands for any characters,
   * dots included, `?` for one, `{a,b}` for one of several; everything else stands for itself. The whole name must match.
   */
  match: string;
  bits?: number;
  groupSize?: number;
  symmetric?: boolean;
}

/** Whether a layer's name, or that name without `.weight`, is what the glob describes. */
export function matchesLayer(glob: string, name: string): boolean {
  return globMatches(glob, name) || (name.endsWith('.weight') && globMatches(glob, name.slice(0, -'.weight'.length)));
}

/** The grid of one layer: of several matching overrides the last one that says something wins. */
export function gridOf(recipe: { grid: Grid; overrides: readonly Override[] }, name: string): Grid {
  const grid = { ...recipe.grid };
  for (const { match, ...numbers } of recipe.overrides) if (matchesLayer(match, name)) Object.assign(grid, numbers);
  return grid;
}

/** Whether an override gives the layer its width. */
export const isPinned = (recipe: { overrides: readonly Override[] }, name: string): boolean =>
  recipe.overrides.some(({ match, bits }) => bits !== undefined && matchesLayer(match, name));

/** Follows every place in the name that the glob may have reached: time grows with glob times name, whatever the glob. */
function globMatches(glob: string, name: string): boolean {
  // Chosen widths are an override a layer, by its name.
  if (!/[*?{]/.test(glob)) return glob === name;
  let reached = new Set([0]);
  for (const [index, part] of glob.split(/\{([^{}]*)\}/).entries()) {
    const alternatives = index % 2 ? part.split(',') : [part];
    reached = new Set(alternatives.flatMap((alternative) => [...advance(alternative, name, reached)]));
  }
  return reached.has(name.length);
}

/** The places after a pattern without braces, from any of the places before it. */
function advance(pattern: string, name: string, from: ReadonlySet<number>): Set<number> {
  let reached = new Set(from);
  for (const character of pattern) {
    if (character === '*') {
      const first = Math.min(...reached);
      for (let place = first; place <= name.length; place++) reached.add(place);
      continue;
    }
    const next = [...reached].filter(
      (place) => place < name.length && (character === '?' || name[place] === character),
    );
    reached = new Set(next.map((place) => place + 1));
  }
  return reached;
}

/** Why a glob cannot be used, or null. Alternatives do not nest. */
export function globProblem(glob: string): string | null {
  let depth = 0;
  for (const character of glob) {
    if (character === '{') depth += 1;
    if (character === '}') depth -= 1;
    if (depth < 0 || depth > 1) break;
  }
  if (glob === '') return 'an empty pattern matches nothing';
  return depth === 0 ? null : 'braces must come in pairs and do not nest';
}
