import { isLutraErrorCode, LutraError, lutraError } from '../errors.js';

/** What native/binding attaches to the errors that it throws. */
interface NativeFailure {
  code: string;
  message: string;
  where?: string;
  found?: number;
  expected?: number;
}

/** How N-API tells what C++ throws where an object gets no memory. */
const noMemory = 'std::bad_alloc';

function isNativeFailure(error: unknown): error is NativeFailure {
  return (
    error instanceof Error && !(error instanceof LutraError) && isLutraErrorCode((error as { code?: unknown }).code)
  );
}

/** Turns an error that came out of the addon into a LutraError; every other one passes unchanged. */
export function fromNative(error: unknown, where?: string): unknown {
  if (error instanceof Error && error.message === noMemory)
    return lutraError('LUTRA_E_MEMORY', { message: 'out of memory', where, cause: error });
  if (!isNativeFailure(error)) return error;
  const { code, message, found, expected } = error;
  if (!isLutraErrorCode(code)) return error;
  return lutraError(code, { message, where: where ?? error.where, found, expected, cause: error });
}

/** Runs a call into the addon and rethrows its failures as LutraErrors. */
export function guarded<T>(call: () => T, where?: string): T {
  try {
    return call();
  } catch (error) {
    throw fromNative(error, where);
  }
}
