import { lutraError } from '../errors.js';
import type { NativeCancel } from './addon.js';
import { fromNative, guarded } from './failure.js';
import { addon } from './loader.js';

/**
 * Runs one asynchronous call of the addon under an AbortSignal: rejects with `signal.reason` when it is raised,
 * within one parallel region of the running call.
 *
 * @throws `LUTRA_E_OPTION` where the signal is none
 */
export async function cancellable<T>(
  signal: AbortSignal | undefined,
  call: (cancel: NativeCancel | null) => Promise<T>,
  where?: string,
): Promise<T> {
  if (signal != null && !(signal instanceof AbortSignal))
    throw lutraError('LUTRA_E_OPTION', {
      message: 'signal is no AbortSignal',
      where,
      found: typeof signal,
      expected: 'the signal of an AbortController',
    });
  signal?.throwIfAborted();
  const cancel = signal ? guarded(() => new (addon().Cancel)()) : null;
  const raise = () => cancel?.cancel();
  signal?.addEventListener('abort', raise, { once: true });
  try {
    const result = await call(cancel);
    signal?.throwIfAborted();
    return result;
  } catch (error) {
    throw signal?.aborted ? signal.reason : fromNative(error, where);
  } finally {
    signal?.removeEventListener('abort', raise);
  }
}
