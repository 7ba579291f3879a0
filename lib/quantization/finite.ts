import { type LutraError, lutraError } from '../errors.js';
import type { Tensor } from '../tensor/index.js';
import type { Call, Values } from './method.js';
import { asFloat32, findNonFinite, valuesOf } from './passes.js';

/** What errors say of a tensor that holds something else than numbers, and where it comes from. */
export interface Suspect {
  /** In the plural or with an article: "the scales". */
  what: string;
  hint: string;
  /** The indices of an element, where they are not those of the tensor's shape. */
  place?: ((index: number) => number[]) | undefined;
}

const weights: Suspect = {
  what: 'the tensor',
  hint: 'The checkpoint is damaged, or was written by a training run that diverged.',
};

/** @throws `LUTRA_E_NON_FINITE` with the value and the index of the first NaN or infinity; a matrix's first index is its row. */
export async function refuseNonFinite(x: Tensor, call: Call, suspect: Suspect = weights): Promise<void> {
  const index = await findNonFinite(x, call);
  if (index >= 0) throw await nonFinite(x, index, call, suspect);
}

/** Of an element that is known not to be finite. */
export async function nonFinite(
  x: Tensor,
  index: number,
  call: Call,
  { what, hint, place = placeIn(x) }: Suspect,
): Promise<LutraError> {
  using flat = x.reshape([x.elements]);
  using one = flat.rows(index, index + 1);
  const value = await elementOf(one, call);
  return lutraError('LUTRA_E_NON_FINITE', {
    message: `${what} ${what.endsWith('s') ? 'hold' : 'holds'} a NaN or infinity`,
    where: call.where,
    found: `${value} at index [${place(index).join(', ')}]`,
    expected: 'finite numbers',
    hint,
  });
}

const placeIn =
  ({ shape }: Tensor) =>
  (index: number): number[] => {
    let rest = index;
    return shape.map((_, axis) => {
      const span = shape.slice(axis + 1).reduce((product, n) => product * n, 1);
      const at = Math.floor(rest / span);
      rest -= at * span;
      return at;
    });
  };

async function elementOf(one: Tensor, call: Call): Promise<number | undefined> {
  if (one.dtype === 'f64') return one.read()[0];
  const wide = await asFloat32(one, call);
  try {
    return wide.read()[0];
  } finally {
    if (wide !== one) wide.dispose();
  }
}

const parts = {
  zeroCode: ['the scales', 'the zero codes'],
  realOffset: ['the scales', 'the offsets'],
  planes: ['the alphas', 'the offsets'],
} as const;

/** Refuses the numbers of a solution's groups [outFeatures, groups, …]. @throws `LUTRA_E_NON_FINITE` with row and group */
export async function refuseNonFiniteValues(values: Values, call: Call): Promise<void> {
  const hint = 'Finite weights and statistics have led to them: please report it, with the recipe.';
  for (const [at, tensor] of valuesOf(values).entries())
    await refuseNonFinite(tensor, call, { what: parts[values.storage][at]!, hint });
}
