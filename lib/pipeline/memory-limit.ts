import { lutraError } from '../errors.js';
import { bytesText } from '../formats/index.js';
import type { MemoryEstimate } from './memory-estimate.js';

/**
 * Refuses a job that may not have the memory that it needs.
 *
 * @throws `LUTRA_E_OPTION` for a limit that is none, `LUTRA_E_MEMORY`
 */
export function checkMemory({ peakBytes, at, parts }: MemoryEstimate, limitBytes: number | undefined): void {
  if (limitBytes === undefined) return;
  if (!Number.isSafeInteger(limitBytes) || limitBytes < 1)
    throw lutraError('LUTRA_E_OPTION', {
      message: 'not a usable number of bytes',
      where: 'maxMemoryBytes',
      found: limitBytes,
      expected: 'a whole number from 1',
    });
  if (peakBytes <= limitBytes) return;
  const list = Object.entries(parts).filter(([, bytes]) => bytes > 0);
  throw lutraError('LUTRA_E_MEMORY', {
    message: 'the job needs more memory than it may have',
    where: at,
    found: `${bytesText(peakBytes)} (${list.map(([part, bytes]) => `${part} ${bytesText(bytes)}`).join(', ')})`,
    expected: `at most ${bytesText(limitBytes)}`,
    hint: hintFor(peakBytes, parts, limitBytes),
  });
}

/** What would help: nothing that the job does makes the process itself smaller. */
function hintFor(peakBytes: number, parts: MemoryEstimate['parts'], limitBytes: number): string {
  if (parts.process >= limitBytes)
    return `The process itself, before any work, is above that: allow at least ${bytesText(peakBytes)}.`;
  const ways = [`allow ${bytesText(peakBytes)}`];
  if (parts.text > 0) ways.push('give a shorter calibration text');
  if (parts.window > 0) ways.push('give shorter calibration windows');
  if (parts.hessians > 0) ways.push('choose a method without Hessians');
  return `To fit, ${ways.join(', or ')}.`;
}

/**
 * Watches that a running job keeps to its limit: what it holds at the borders of its steps.
 *
 * @returns to be called at every border. @throws `LUTRA_E_MEMORY`
 */
export function memoryWatch(limitBytes: number | undefined): (where: string) => void {
  if (limitBytes === undefined) return () => {};
  return (where) => {
    const found = process.memoryUsage.rss();
    if (found > limitBytes)
      throw lutraError('LUTRA_E_MEMORY', {
        message: 'the job holds more memory than it may have',
        where,
        found: bytesText(found),
        expected: `at most ${bytesText(limitBytes)}`,
        hint: 'Allow more memory, or give shorter calibration windows or a method without Hessians.',
      });
  };
}
