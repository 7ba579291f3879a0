import vm from 'node:vm';
import { lutraError } from '../errors.js';

// A realm of its own for one expression: only a script that V8 can interrupt stops inside a regular expression.
const realm = vm.createContext(Object.assign(Object.create(null), { work: null }), {
  codeGeneration: { strings: false, wasm: false },
});
const script = new vm.Script('work()');

/** Milliseconds of the clock that a text of this many UTF-16 units may take: some hundred times what models' tokenizers take, and more for a machine that is busy. */
export const timeFor = (length: number): number => Math.ceil(10_000 + length / 10);

/**
 * Runs work that a tokenizer.json decides about, its regular expressions above all: those that backtrack for years are ended.
 * Calls may nest.
 *
 * @param limit in milliseconds
 * @throws `LUTRA_E_UNSUPPORTED_MODEL` where the work takes longer
 */
export function withinTime<T>(work: () => T, limit: number, where: string): T {
  const outer = realm.work;
  realm.work = work;
  try {
    return script.runInContext(realm, { timeout: limit }) as T;
  } catch (cause) {
    if ((cause as { code?: unknown } | null)?.code !== 'ERR_SCRIPT_EXECUTION_TIMEOUT') throw cause;
    throw lutraError('LUTRA_E_UNSUPPORTED_MODEL', {
      message: 'the tokenizer takes too long: one of its patterns backtracks',
      where,
      found: `more than ${limit} ms`,
      hint: 'Look at the patterns of its normalizer, pre_tokenizer and decoder: nested repetitions are the usual cause.',
      cause,
    });
  } finally {
    realm.work = outer;
  }
}
