import { LutraError, type LutraErrorDetails, lutraError } from '../errors.js';
import { onFile } from '../formats/index.js';

/** The error for what an unfinished job has left and is not as it was left. */
export const damagedWork = (
  where: string,
  message: string,
  details: Pick<LutraErrorDetails, 'found' | 'expected' | 'cause'> = {},
): LutraError =>
  lutraError('LUTRA_E_RESUME_DAMAGED', {
    ...details,
    message,
    where,
    hint: 'Start the job afresh: `resume: false`, or --no-resume on the command line.',
  });

/** What a file is said to be that is not as it was left; any other error says nothing about it. */
const damages: readonly string[] = [
  'LUTRA_E_NOT_FOUND',
  'LUTRA_E_TRUNCATED',
  'LUTRA_E_HEADER',
  'LUTRA_E_INPUT_CHANGED',
];

/**
 * Runs file work on what an unfinished job has left. Damage is only what the file itself shows: descriptors that are used up,
 * missing rights or a disk that fails for a moment are no reason to give good work up.
 *
 * @param where the work is, as long as its errors do not tell more closely
 * @throws `LUTRA_E_RESUME_DAMAGED` with `message` where a file is missing, or its length or content is another; `LUTRA_E_IO`
 */
export async function onWork<T>(where: string, message: string, work: () => Promise<T>): Promise<T> {
  try {
    return await onFile(where, work);
  } catch (cause) {
    if (!(cause instanceof LutraError) || !damages.includes(cause.code)) throw cause;
    const { found, expected } = cause;
    throw damagedWork(cause.where ?? where, message, { found, expected, cause });
  }
}
