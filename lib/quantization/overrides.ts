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
  const pattern = globPattern(glob);
  return pattern.test(name) || (name.endsWith('.weight') && pattern.test(name.slice(0, -'.weight'.length)));
}

/** The grid of one layer: of several matching overrides the last one that says something wins. */
export function gridOf(recipe: { grid: Grid; overrides: readonly Override[] }, name: string): Grid {
  const grid = { ...recipe.grid };
  for (const { match, ...numbers } of recipe.overrides) if (matchesLayer(match, name)) Object.assign(grid, numbers);
  return grid;
}

/** The glob as a regular expression; `globProblem` has found none with it. */
function globPattern(glob: string): RegExp {
  let pattern = '';
  let inBraces = false;
  for (const character of glob) {
    if (character === '*') pattern += '.*';
    else if (character === '?') pattern += '.';
    else if (character === '{') pattern += '(?:';
    else if (character === '}' && inBraces) pattern += ')';
    else if (character === ',' && inBraces) pattern += '|';
    else pattern += character.replace(/[\\^$.*+?()[\]{}|]/g, '\\$&');
    if (character === '{') inBraces = true;
    if (character === '}') inBraces = false;
  }
  return new RegExp(`^${pattern}$`, 's');
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
