import vm from 'node:vm';
import { lutraError } from '../errors.js';

// A realm of its own for one expression: only a script that V8 can interrupt stops inside a regular expression.
const realm = vm.createContext(Object.assign(Object.create(null), { work: null }), {
  codeGeneration: { strings: false, wasm: false },
});
const script = new vm.Script('work()');

/** Milliseconds of work that a text of this many UTF-16 units may take: some hundred times what models' tokenizers take. */
export const timeFor = (length: number): number => Math.ceil(4_000 + length / 10);

/** Microseconds of the processor: of this thread where Node tells them, else of all, whose work then counts, too. */
const timeWorked = (before?: NodeJS.CpuUsage): NodeJS.CpuUsage => {
  const { threadCpuUsage } = process as { threadCpuUsage?: typeof process.cpuUsage };
  return threadCpuUsage ? threadCpuUsage.call(process, before) : process.cpuUsage(before);
};

/**
 * Runs work that a tokenizer.json decides about, its regular expressions above all: those that backtrack for years are ended.
 * A process that is stopped, or has its processor taken away, works no longer for it: where the clock says that the time is
 * over and the processor's time is not, the work, which changes nothing, begins again. Calls may nest.
 *
 * @param limit in milliseconds of the processor
 * @throws `LUTRA_E_UNSUPPORTED_MODEL` where the work takes longer
 */
export function withinTime<T>(work: () => T, limit: number, where: string): T {
  const outer = realm.work;
  realm.work = work;
  try {
    for (let timeout = limit; ; timeout *= 2) {
      const before = timeWorked();
      try {
        return script.runInContext(realm, { timeout }) as T;
      } catch (cause) {
        if ((cause as { code?: unknown } | null)?.code !== 'ERR_SCRIPT_EXECUTION_TIMEOUT') throw cause;
        const { user, system } = timeWorked(before);
        // What the interruption itself takes is no work.
        if ((user + system) / 1000 >= 0.9 * limit) throw tooLong(limit, where, cause);
      }
    }
  } finally {
    realm.work = outer;
  }
}

const tooLong = (limit: number, where: string, cause: unknown) =>
  lutraError('LUTRA_E_UNSUPPORTED_MODEL', {
    message: 'the tokenizer takes too long: one of its patterns backtracks',
    where,
    found: `more than ${limit} ms`,
    hint: 'Look at the patterns of its normalizer, pre_tokenizer and decoder: nested repetitions are the usual cause.',
    cause,
  });
