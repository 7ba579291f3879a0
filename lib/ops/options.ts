import { lutraError } from '../errors.js';

type Keys = Readonly<Record<string, true>>;

/** The options that calls take, by name. */
export const productOptions: Keys = { mode: true, batchInvariant: true };
export const threadOptions: Keys = { threads: true };
export const multiplyOptions: Keys = { out: true, threads: true };
export const prepareOptions: Keys = { ...productOptions, threads: true };
export const lutGemmOptions: Keys = { ...prepareOptions, out: true };
export const lutGemmAsyncOptions: Keys = { ...lutGemmOptions, signal: true };

/** @throws `LUTRA_E_OPTION` for anything but an object, and for a key that the call does not know: it would have no effect. */
export function checkOptions(options: unknown, known: Keys, where: string): void {
  if (typeof options !== 'object' || options === null)
    throw lutraError('LUTRA_E_OPTION', {
      message: 'the options are an object',
      where: `${where}.options`,
      found: String(options),
    });
  for (const key in options) {
    if (known[key] === true) continue;
    throw lutraError('LUTRA_E_OPTION', {
      message: 'unknown option',
      where,
      found: `'${key}'`,
      expected: Object.keys(known).join(', '),
    });
  }
}
