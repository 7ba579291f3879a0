import { dirname } from 'node:path';
import type { Leftover } from '../formats/index.js';
import type { QuantizationJob } from './job.js';
import type { JobIdentity } from './job-identity.js';
import { Journal } from './journal.js';
import { refuseRecorded } from './strict.js';

/** What an earlier run has left in `<out>.partial`, and what becomes of it. */
export interface UnfinishedWork {
  directory: string;
  /** Blocks of the model that are finished; null where what tells of them cannot be read, and is to be removed. */
  blocks: number | null;
  /** Whether the output has its name already, and only the work beside it is still to be removed. */
  published: boolean;
  /** Whether the job goes on behind these blocks; false where it is told to start afresh, and removes them. */
  takenOver: boolean;
}

/**
 * Looks at what an earlier run has left, without a change on the disk; null where that is nothing to go on with.
 *
 * @param known of the job's identity: all but the hashes of its files
 * @throws `LUTRA_E_RESUME_MISMATCH` where it is of another job, `LUTRA_E_RESUME_DAMAGED`, `LUTRA_E_STRICT`
 */
export async function unfinishedWork(
  { resume = true, strict = false }: QuantizationJob,
  { leftover, journal: path }: Leftover,
  known: Partial<JobIdentity>,
): Promise<UnfinishedWork | null> {
  const directory = dirname(path);
  const published = leftover === 'published';
  if (leftover === 'none') return null;
  const reading = Journal.read({ leftover, journal: path });
  if (!resume) {
    const journal = await reading.catch(() => null);
    return { directory, blocks: journal?.blocks.length ?? null, published, takenOver: false };
  }
  const journal = await reading;
  if (!journal) return null;
  journal.requireSame(known);
  if (strict) refuseRecorded(journal.results);
  return { directory, blocks: journal.blocks.length, published, takenOver: true };
}
