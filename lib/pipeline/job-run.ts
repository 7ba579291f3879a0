import { join } from 'node:path';
import { LutraError, LutraNumericError } from '../errors.js';
import {
  type CheckpointPlan,
  CheckpointWriter,
  OutputDirectory,
  type Outputs,
  readOwnJson,
  requireRoom,
  storedSizes,
  syncing,
} from '../formats/index.js';
import { closeAll } from './closing.js';
import { damagedWork, onWork } from './damaged-work.js';
import type { QuantizationJob } from './job.js';
import type { JobIdentity } from './job-identity.js';
import { type Choices, Journal } from './journal.js';
import { manifestFile, manifestOf } from './manifest.js';

const defaultHint = 'call quantizeModel again with the same job to go on.';

/** One run of a job in the job's directory: takes over what an earlier run has left, and leaves what the next one needs. */
export class JobRun {
  #writer: CheckpointWriter | null = null;
  #journal: Journal | null = null;

  private constructor(
    private readonly job: QuantizationJob,
    readonly output: OutputDirectory,
    /** Of the model. */
    private readonly blocks: number,
  ) {}

  /** Claims the job's output. @throws `LUTRA_E_SAME_PATH`, `LUTRA_E_EXISTS`, `LUTRA_E_IO` */
  static async claim(job: QuantizationJob, source: string, blocks: number): Promise<JobRun> {
    const { overwrite = false, resume = true } = job;
    const options = { source, overwrite, leftover: resume ? 'resume' : 'remove' } as const;
    const output = await syncing(job.signal, () => OutputDirectory.claim(job.out, options));
    return new JobRun(job, output, blocks);
  }

  /**
   * The journal of an earlier run; null where there is none.
   *
   * @param known of the job's identity, before its files are read
   * @throws `LUTRA_E_RESUME_MISMATCH`, `LUTRA_E_RESUME_DAMAGED`
   */
  async earlier(known: Partial<JobIdentity>): Promise<Journal | null> {
    this.#journal = await Journal.read(this.output);
    this.#journal?.requireSame(known);
    return this.#journal;
  }

  /** A journal of its own. */
  begin(identity: JobIdentity, choices: Choices): Journal {
    this.#journal = Journal.begin(this.output, identity, choices);
    return this.#journal;
  }

  /** The checkpoint that grows: new, or with the tensors of the journal's blocks. */
  async open(plan: CheckpointPlan, journal: Journal): Promise<CheckpointWriter> {
    const { signal } = this.job;
    this.#writer = journal.kept
      ? await this.#resume(plan, journal)
      : await syncing(signal, () => CheckpointWriter.begin(plan, this.output));
    // Allocating takes as long as some blocks.
    if (!journal.kept && journal.choices.recipe.allocation) await journal.keep(signal);
    return this.#writer;
  }

  async #resume(plan: CheckpointPlan, { tensors }: Journal): Promise<CheckpointWriter> {
    const { output, job } = this;
    await requireRoom(plan, output);
    const message = 'the checkpoint of the unfinished job is not as it was left';
    return onWork(output.checkpoint, message, () => CheckpointWriter.resume(plan, output, tensors, job));
  }

  /** Ends the work of a run that was killed when its output had its name already. @throws `LUTRA_E_RESUME_DAMAGED` where it is another */
  async finishPublished(journal: Journal, identity: JobIdentity) {
    const { results } = journal;
    const path = join(this.output.path, manifestFile);
    const found = await onWork(path, 'the output has no manifest', () => readOwnJson(path));
    const expected = manifestOf(identity, results, found.outputs as unknown as Outputs);
    if (JSON.stringify(found) !== JSON.stringify(expected))
      throw damagedWork(path, 'the output is not the one that the journal tells of');
    const sizes = await storedSizes(this.output.path);
    await this.output.clean();
    return { ...results, ...sizes, resumedBlocks: journal.blocks.length };
  }

  /** Ends a run that has failed: finished blocks stay. @returns the error, which then says how to go on */
  async leave(error: unknown): Promise<unknown> {
    const journal = this.#journal;
    // What cannot be closed or removed now is left to the next run; why this one has failed is what its caller must hear.
    await closeAll(
      () => this.#writer?.abandon(),
      () => (journal?.kept ? this.output.keep() : this.output.leave()),
    ).catch(() => {});
    if (!journal?.kept) return error;
    const untouched = !(error instanceof LutraError) || error === this.job.signal?.reason || refusals.has(error.code);
    if (untouched) return error;
    const { resumeHint = defaultHint } = this.job;
    const kept = `${journal.blocks.length} of ${this.blocks} blocks are kept`;
    if (error.code === 'LUTRA_E_STRICT') return error.withHint(`${kept}: the same job without it goes on with them.`);
    // Numbers come out the same the next time.
    if (error instanceof LutraNumericError) return error.withHint(`${kept}, but the same job ends here again.`);
    return error.withHint(`${kept}: ${resumeHint}`);
  }
}

/** Errors that say themselves what to do with the work that is there. */
const refusals: ReadonlySet<string> = new Set(['LUTRA_E_RESUME_MISMATCH', 'LUTRA_E_RESUME_DAMAGED']);
