import { LutraError, lutraError } from '../errors.js';
import { onFile } from './system-error.js';

/** The error for what an unfinished job has left and is not as it was left. */
export const damagedWork = (where: string, message: string, cause?: unknown): LutraError =>
  lutraError('LUTRA_E_RESUME_DAMAGED', {
    message,
    where,
    hint: 'Start the job afresh: `resume: false`, or --no-resume on the command line.',
    cause,
  });

/** What a file is said to be that is not as it was left; any other error says nothing about it. */
const damages: readonly string[] = ['LUTRA_E_NOT_FOUND', 'LUTRA_E_TRUNCATED', 'LUTRA_E_HEADER'];

/**
 * Runs file work on what an unfinished job has left. Damage is only what the file itself shows: descriptors that are used up,
 * missing rights or a disk that fails for a moment are no reason to give good work up.
 *
 * @throws `LUTRA_E_RESUME_DAMAGED` with `message` where the file is missing, too short or too long; `LUTRA_E_IO`
 */
export async function onWork<T>(where: string, message: string, work: () => Promise<T>): Promise<T> {
  try {
    return await onFile(where, work);
  } catch (error) {
    if (error instanceof LutraError && damages.includes(error.code)) throw damagedWork(where, message, error);
    throw error;
  }
}
