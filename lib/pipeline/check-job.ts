import { requireSource } from '../calibration/index.js';
import { lutraError } from '../errors.js';
import { requireDirectory } from '../formats/index.js';
import { checkOptions, checkThreads } from '../ops/index.js';
import { calibrationKeys, jobKeys, type QuantizationJob } from './job.js';

/**
 * Whether a job is one, as far as its fields alone can tell.
 *
 * @throws `LUTRA_E_OPTION`; `LUTRA_E_NOT_FOUND` where the model is no directory
 */
export async function checkJob(job: QuantizationJob): Promise<void> {
  checkOptions(job, jobKeys, where(''));
  if (job.calibration != null) {
    checkOptions(job.calibration, calibrationKeys, 'calibration');
    requireSource(job.calibration);
  }
  if (job.signal != null && !(job.signal instanceof AbortSignal)) throw wrong('signal', job.signal, 'an AbortSignal');
  job.signal?.throwIfAborted();
  for (const name of ['onProgress', 'onLayer'] as const)
    if (job[name] != null && typeof job[name] !== 'function') throw wrong(name, job[name], 'a function');
  for (const name of ['overwrite', 'resume', 'strict'] as const)
    if (job[name] != null && typeof job[name] !== 'boolean') throw wrong(name, job[name], 'true or false');
  checkThreads(job.threads ?? 0, where('.threads'));
  if (typeof job.out !== 'string' || job.out === '') throw wrong('out', job.out, 'the path of a directory to be made');
  await requireDirectory(job.model, where('.model'));
}

const where = (field: string): string => `quantizeModel${field}`;

const wrong = (field: string, found: unknown, expected: string) =>
  lutraError('LUTRA_E_OPTION', {
    message: 'the job cannot be used as it is given',
    where: where(`.${field}`),
    found: found === '' ? "''" : found === null ? 'null' : typeof found,
    expected,
  });
