import { lutraError } from '../errors.js';
import type { Tensor } from '../tensor/index.js';
import type { Call } from './method.js';
import { asFloat32, findNonFinite } from './passes.js';

/** @throws `LUTRA_E_NON_FINITE` with the value and the index of the first NaN or infinity. */
export async function refuseNonFinite(x: Tensor, call: Call): Promise<void> {
  const index = await findNonFinite(x, call);
  if (index < 0) return;
  using flat = x.reshape([x.elements]);
  using one = flat.rows(index, index + 1);
  using value = await asFloat32(one, call);
  let rest = index;
  const place = x.shape.map((_, axis) => {
    const span = x.shape.slice(axis + 1).reduce((product, n) => product * n, 1);
    const at = Math.floor(rest / span);
    rest -= at * span;
    return at;
  });
  throw lutraError('LUTRA_E_NON_FINITE', {
    message: 'the tensor holds a NaN or infinity',
    where: call.where,
    found: `${value.read()[0]} at index [${place.join(', ')}]`,
    expected: 'finite numbers',
    hint: 'The checkpoint is damaged, or was written by a training run that diverged.',
  });
}
