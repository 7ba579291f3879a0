import { isSyncing } from '../formats/index.js';

/** Milliseconds in which everything but a sync has ended; an abort is answered within 100. */
const patience = 50;

/** The last job of a signal that was answered before its end. */
const behind = new WeakMap<AbortSignal, Promise<unknown>>();

/** Waits for a job that has answered an abort and still has its output: for callers who remove that. */
export async function givenBack(signal: AbortSignal | undefined): Promise<void> {
  if (signal) await behind.get(signal);
}

/**
 * What `work` comes to. An abort that finds it in a sync is answered before that ends: the work goes on behind until it hears of
 * the abort itself, keeps its claim until then, and tells nobody any more.
 */
export function answerAbort<T>(work: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  if (!signal) return work;
  return new Promise((resolve, reject) => {
    let timer: NodeJS.Timeout | undefined;
    const answer = () => {
      if (!isSyncing(signal)) return;
      behind.set(signal, Promise.allSettled([work]));
      reject(signal.reason);
    };
    const wait = () => {
      timer = setTimeout(answer, patience);
    };
    signal.addEventListener('abort', wait, { once: true });
    const end = () => {
      signal.removeEventListener('abort', wait);
      clearTimeout(timer);
    };
    work.then(resolve, reject).finally(end);
  });
}
