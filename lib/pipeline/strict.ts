import { lutraError } from '../errors.js';
import type { Warning } from '../quantization/index.js';
import type { JobResults } from './job.js';

const hint = 'Without `strict` the job goes on and records it.';

/** @throws `LUTRA_E_STRICT` of the first, for a strict job */
export function refuseWarnings(layer: string, [first]: readonly Warning[]): void {
  if (first) throw lutraError('LUTRA_E_STRICT', { message: first.message, where: layer, found: first.kind, hint });
}

/** Of a window that a strict job may not leave out. */
export const badWindow = (where: string) =>
  lutraError('LUTRA_E_STRICT', {
    message: 'the activations hold a NaN or infinity: the window is left out',
    where,
    found: 'badWindow',
    hint,
  });

/** What an earlier run has recorded, for a strict one that would go on with it. @throws `LUTRA_E_STRICT` */
export function refuseRecorded({ layers, badWindows: [bad] }: Pick<JobResults, 'layers' | 'badWindows'>): void {
  if (bad) throw badWindow(`block ${bad.block}, calibration window ${bad.window}`);
  for (const { name, warnings } of layers) refuseWarnings(name, warnings);
}
