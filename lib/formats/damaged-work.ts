import { type LutraError, lutraError } from '../errors.js';

/** The error for what an unfinished job has left and is not as it was left. */
export const damagedWork = (where: string, message: string, cause?: unknown): LutraError =>
  lutraError('LUTRA_E_RESUME_DAMAGED', {
    message,
    where,
    hint: 'Start the job afresh: `resume: false`, or --no-resume on the command line.',
    cause,
  });
