import { lutraError } from '../errors.js';
import type { Addon } from './addon.js';

/** A variable of lutra's that is set to something it cannot be. */
export interface WrongVariable {
  name: string;
  found: string;
  expected: string;
}

/** Variables that lutra would have to ignore. */
export function wrongVariables(native: Addon): WrongVariable[] {
  const wrong: WrongVariable[] = [];
  const { LUTRA_ISA: isa, LUTRA_THREADS: threads } = process.env;
  if (isa) {
    const { isas, isaOverrideValid } = native.describe();
    if (!isaOverrideValid) wrong.push({ name: 'LUTRA_ISA', found: isa, expected: isas.join(', ') });
  }
  if (threads && !(/^\d+$/.test(threads) && Number(threads) >= 1 && Number(threads) <= 1024))
    wrong.push({ name: 'LUTRA_THREADS', found: threads, expected: 'a whole number from 1 to 1024' });
  return wrong;
}

/** @throws `LUTRA_E_OPTION` where a variable is wrong: nothing runs otherwise than it was told to. */
export function checkVariables(native: Addon): void {
  const [wrong] = wrongVariables(native);
  if (!wrong) return;
  throw lutraError('LUTRA_E_OPTION', {
    message: 'the environment variable is set to what it cannot be',
    where: wrong.name,
    found: `'${wrong.found}'`,
    expected: wrong.expected,
    hint: 'Set it to one of these, or unset it.',
  });
}
