import { z } from 'zod';
import {
  crc32c,
  type JsonObject,
  type Leftover,
  type OutputDirectory,
  readOwnJson,
  replaceFile,
  syncing,
} from '../formats/index.js';
import type { Recipe, ScaleDtype } from '../quantization/index.js';
import type { Checksums } from './activation-generations.js';
import { damagedWork, onWork } from './damaged-work.js';
import type { JobResults } from './job.js';
import { type JobIdentity, requireSameJob } from './job-identity.js';
import { provenance } from './manifest.js';

/** What a job has chosen once, and a later run does not choose again. */
export interface Choices {
  /** With the widths that were allocated. */
  recipe: Recipe;
  /** By layer. */
  scaleDtypes: ReadonlyMap<string, ScaleDtype>;
}

/** A block all of whose tensors are on the disk. */
export interface FinishedBlock extends JobResults {
  /** CRC-32C by name of what is stored. */
  tensors: Record<string, number>;
}

/** What enters the block behind the finished ones: of the calibration windows, and of those that are held out. */
export interface ActivationRecord {
  inputs: Checksums;
  heldOut: Checksums | null;
}

interface Content {
  identity: JobIdentity;
  chosen: { recipe: Recipe; scaleDtypes: Record<string, ScaleDtype> };
  blocks: FinishedBlock[];
  activations: ActivationRecord | null;
}

/** The frame of a journal; what a checksum of ours vouches for is not looked at in detail. */
const records = z.array(z.looseObject({}));
const checksums = z.record(z.string(), z.number());
const contentSchema = z.strictObject({
  identity: z.looseObject({}),
  chosen: z.strictObject({ recipe: z.looseObject({}), scaleDtypes: z.record(z.string(), z.string()) }),
  blocks: z.array(
    z.strictObject({
      layers: records,
      transforms: records,
      finetune: records,
      badWindows: records,
      tensors: checksums,
    }),
  ),
  activations: z.strictObject({ inputs: z.array(z.number()), heldOut: z.array(z.number()).nullable() }).nullable(),
});
const fileSchema = z.strictObject({
  crc32c: z.number(),
  journal: z.looseObject({ identity: z.looseObject({ lutra: z.looseObject({}) }) }),
});

/**
 * How far a job is: one file, replaced as a whole when a block is finished and everything that the file speaks of is on the
 * disk. A run that ends, however it ends, loses what is not in it.
 */
export class Journal {
  private constructor(
    private readonly path: string,
    private content: Content,
    /** Whether it is on the disk: then the work is worth keeping. */
    public kept: boolean,
  ) {}

  static begin(output: OutputDirectory, identity: JobIdentity, { recipe, scaleDtypes }: Choices): Journal {
    const chosen = { recipe, scaleDtypes: Object.fromEntries(scaleDtypes) };
    return new Journal(output.journal, { identity, chosen, blocks: [], activations: null }, false);
  }

  /**
   * What an earlier run has left; null where it has left nothing.
   *
   * @throws `LUTRA_E_RESUME_DAMAGED` where it is not as that run wrote it, `LUTRA_E_RESUME_MISMATCH` where another lutra or
   *   instruction set wrote it, `LUTRA_E_IO`
   */
  static async read({ leftover, journal: path }: Leftover): Promise<Journal | null> {
    if (leftover === 'none') return null;
    const file = await onWork(path, 'the journal of the unfinished job cannot be read', () => readOwnJson(path));
    return new Journal(path, await contentOf(file, path), true);
  }

  /** @throws `LUTRA_E_RESUME_MISMATCH` where the journal is of another job */
  requireSame(identity: Partial<JobIdentity>): void {
    requireSameJob(this.content.identity, identity, this.path);
  }

  get choices(): Choices {
    const { recipe, scaleDtypes } = this.content.chosen;
    return { recipe, scaleDtypes: new Map(Object.entries(scaleDtypes)) };
  }

  get blocks(): readonly FinishedBlock[] {
    return this.content.blocks;
  }

  get activations(): ActivationRecord | null {
    return this.content.activations;
  }

  get results(): JobResults {
    const { blocks } = this;
    return {
      layers: blocks.flatMap(({ layers }) => layers),
      transforms: blocks.flatMap(({ transforms }) => transforms),
      finetune: blocks.flatMap(({ finetune }) => finetune),
      badWindows: blocks.flatMap(({ badWindows }) => badWindows),
    };
  }

  /** Checksums of the tensors of finished blocks. */
  get tensors(): Map<string, number> {
    return new Map(this.blocks.flatMap(({ tensors }) => Object.entries(tensors)));
  }

  /** Adds a block. Its tensors, and the activations behind it, must be on the disk. */
  async add(block: FinishedBlock, activations: ActivationRecord | null, signal?: AbortSignal): Promise<void> {
    await this.#write({ ...this.content, blocks: [...this.blocks, block], activations }, signal);
  }

  /** Keeps what was chosen before the first block is finished, too. */
  async keep(signal?: AbortSignal): Promise<void> {
    await this.#write(this.content, signal);
  }

  async #write(journal: Content, signal: AbortSignal | undefined): Promise<void> {
    const text = `${JSON.stringify({ crc32c: await checksumOf(journal), journal })}\n`;
    await syncing(signal, () => replaceFile(this.path, text));
    this.content = journal;
    this.kept = true;
  }
}

/**
 * The content of a journal's file.
 *
 * @throws `LUTRA_E_RESUME_DAMAGED` where it is not as it was written, `LUTRA_E_RESUME_MISMATCH` where another lutra or instruction set
 *   wrote it
 */
export async function contentOf(file: JsonObject, path: string): Promise<Content> {
  if (!fileSchema.safeParse(file).success) throw damagedWork(path, 'the journal of the unfinished job is none');
  const { crc32c: expected, journal } = file as unknown as { crc32c: number; journal: Content };
  if ((await checksumOf(journal)) !== expected) throw damagedWork(path, 'the journal is not as it was written');
  requireSameJob(journal.identity, { lutra: provenance() }, path);
  if (!contentSchema.safeParse(journal).success) throw damagedWork(path, 'the journal of the unfinished job is none');
  return journal;
}

/** What seals a journal. */
export const checksumOf = (content: object): Promise<number> =>
  crc32c(new TextEncoder().encode(JSON.stringify(content)));
