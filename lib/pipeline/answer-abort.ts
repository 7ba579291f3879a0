import { isSyncing } from '../formats/index.js';

/** Milliseconds in which everything but a sync has ended; an abort is answered within 100. */
const patience = 50;

/** The jobs of a signal that were answered before their end. */
const behind = new WeakMap<AbortSignal, Promise<unknown>>();

/** Waits for the jobs that have answered an abort and still have their output: for callers who remove that. */
export async function givenBack(signal: AbortSignal | undefined): Promise<void> {
  if (signal) await behind.get(signal);
}

/**
 * What `work` comes to. An abort that finds it in a sync is answered before that ends: the work goes on behind until it hears of
 * the abort itself, keeps its claim until then, and tells nobody any more.
 *
 * @param work gets a signal of its own, aborted with the given one: what it syncs is not what others sync under that.
 */
export function answerAbort<T>(
  work: (signal: AbortSignal | undefined) => Promise<T>,
  signal: AbortSignal | undefined,
): Promise<T> {
  if (!signal) return work(undefined);
  const own = new AbortController();
  if (signal.aborted) own.abort(signal.reason);
  const working = work(own.signal);
  return new Promise((resolve, reject) => {
    let timer: NodeJS.Timeout | undefined;
    const answer = () => {
      if (!isSyncing(own.signal)) return;
      behind.set(signal, Promise.allSettled([behind.get(signal), working]));
      reject(signal.reason);
    };
    const abort = () => {
      own.abort(signal.reason);
      timer = setTimeout(answer, patience);
    };
    const end = () => {
      signal.removeEventListener('abort', abort);
      clearTimeout(timer);
    };
    working.then(resolve, reject).finally(end);
    if (signal.aborted) abort();
    else signal.addEventListener('abort', abort, { once: true });
  });
}
