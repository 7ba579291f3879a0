import { mkdir, readdir, rm, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { lutraError } from '../../errors.js';
import { type Dtype, type QuantizedTensor, rankOf, type Tensor } from '../../tensor/index.js';
import { syncDirectory, syncing } from '../durable.js';
import { indexFile, SafetensorsWriter } from '../safetensors/index.js';
import { quoted } from '../strict-json.js';
import { onFile } from '../system-error.js';
import { configFile, type StoredSizes, storedSizes } from './checkpoint.js';
import { copyDocument } from './copy-document.js';
import { type ClaimOptions, type Leftover, OutputDirectory } from './output-directory.js';
import { type Outputs, outputsOf } from './outputs.js';
import { partsOf } from './parts.js';
import type { CheckpointPlan } from './plan.js';

interface Abortable {
  signal?: AbortSignal | undefined;
}

/** Room for config.json, the index and the documents of `finish`, whose sizes are not known beforehand. */
const reserveBytes = 2 ** 20;

export interface OutputOptions {
  overwrite?: boolean | undefined;
  leftover?: ClaimOptions['leftover'];
  /** Room that is needed on the disk besides. */
  scratchBytes?: number | undefined;
}

/**
 * Whether an output can be begun, as far as that can be seen without a change on the disk.
 *
 * @throws `LUTRA_E_SAME_PATH`, `LUTRA_E_EXISTS`, `LUTRA_E_DISK_FULL`, `LUTRA_E_IO`
 */
export async function checkOutput(
  plan: CheckpointPlan,
  out: string,
  { overwrite = false, leftover = 'remove', scratchBytes = 0 }: OutputOptions,
): Promise<{ directory: string; neededBytes: number; freeBytes: number | null } & Leftover> {
  const neededBytes = (await bytesNeeded(plan)) + scratchBytes;
  const options = { source: plan.source.directory, overwrite, leftover, bytes: neededBytes };
  return { ...(await OutputDirectory.check(out, options)), neededBytes };
}

/**
 * Writes a planned checkpoint: `put` every quantized matrix and `putDense` every replaced tensor, in any order, then `finish`.
 * Nothing has the output's name before `finish` ends; whatever fails, `abort` (or leaving a scope that holds the writer with
 * `await using`) removes all traces, unless somebody has settled otherwise with the output directory.
 */
export class CheckpointWriter {
  private constructor(
    readonly plan: CheckpointPlan,
    private readonly output: OutputDirectory,
    private readonly weights: SafetensorsWriter,
  ) {}

  /**
   * Claims `out` and makes its files; what a job that is no more has left is removed.
   *
   * @throws `LUTRA_E_SAME_PATH`, `LUTRA_E_EXISTS`, `LUTRA_E_DISK_FULL`, `LUTRA_E_IO`
   */
  static async create(
    plan: CheckpointPlan,
    out: string,
    options: { overwrite?: boolean } = {},
  ): Promise<CheckpointWriter> {
    const { overwrite = false } = options;
    const output = await OutputDirectory.claim(out, { source: plan.source.directory, overwrite, leftover: 'remove' });
    try {
      return await CheckpointWriter.begin(plan, output);
    } catch (error) {
      await output.discard();
      throw error;
    }
  }

  /** Makes the plan's files in a directory that is claimed. @throws `LUTRA_E_DISK_FULL`, `LUTRA_E_IO` */
  static async begin(plan: CheckpointPlan, output: OutputDirectory): Promise<CheckpointWriter> {
    const { checkpoint } = output;
    await requireRoom(plan, output);
    await onFile(checkpoint, () => mkdir(checkpoint));
    const weights = await SafetensorsWriter.create(checkpoint, plan.safetensors);
    try {
      for (const directory of [checkpoint, output.work]) await syncDirectory(directory);
      return new CheckpointWriter(plan, output, weights);
    } catch (error) {
      await weights.abandon();
      throw error;
    }
  }

  /**
   * Goes on with files that an earlier run of the same plan has left, and removes what is not of the plan.
   *
   * @param written checksums of the tensors that are whole
   * @throws what `SafetensorsWriter.resume` throws where a file is not as that run has left it; `LUTRA_E_IO`
   */
  static async resume(
    plan: CheckpointPlan,
    output: OutputDirectory,
    written: ReadonlyMap<string, number>,
    options: Abortable = {},
  ): Promise<CheckpointWriter> {
    const { checkpoint } = output;
    const planned = new Set(plan.safetensors.files.map(({ name }) => name));
    for (const name of await onFile(checkpoint, () => readdir(checkpoint)))
      if (!planned.has(name))
        await onFile(join(checkpoint, name), () => rm(join(checkpoint, name), { recursive: true }));
    const weights = await SafetensorsWriter.resume(checkpoint, plan.safetensors, written, options);
    return new CheckpointWriter(plan, output, weights);
  }

  /** CRC-32C of what is stored for every tensor written so far. */
  get checksums(): ReadonlyMap<string, number> {
    return this.weights.checksums;
  }

  /** Brings what was written to the disk. @throws `LUTRA_E_DISK_FULL`, `LUTRA_E_IO` */
  async sync(options: Abortable = {}): Promise<void> {
    await this.weights.sync(options);
  }

  /** Writes one quantized matrix. @throws `LUTRA_E_NOT_FOUND`, `LUTRA_E_SHAPE`, `LUTRA_E_DTYPE` where it is not the planned one */
  async put(name: string, tensor: QuantizedTensor, options: Abortable = {}): Promise<void> {
    const entry = this.plan.quantized.get(name);
    if (!entry) throw lutraError('LUTRA_E_NOT_FOUND', { message: 'no such matrix was planned', where: quoted(name) });
    const [found, expected] = [describeTensor(tensor), describe(entry.layout, entry.subBranch)];
    if (found !== expected)
      throw lutraError('LUTRA_E_SHAPE', {
        message: 'another layout was planned',
        where: quoted(name),
        found,
        expected,
      });
    const { codes, scales, offsets, subBranch } = partsOf(name, entry);
    const padded = { ...options, zeroTail: true };
    await this.weights.write(codes.stored.name, tensor.codes, padded);
    await this.weights.write(scales.stored.name, tensor.scales, padded);
    if (offsets && tensor.offsets) await this.weights.write(offsets.stored.name, tensor.offsets, padded);
    for (const key of ['a', 'b', 'aScales', 'bScales'] as const) {
      const [part, stored] = [subBranch?.[key], tensor.subBranch?.[key]];
      if (part && stored) await this.weights.write(part.stored.name, stored, padded);
    }
  }

  /** Writes one tensor that the plan replaces. @throws `LUTRA_E_NOT_FOUND`, `LUTRA_E_SHAPE`, `LUTRA_E_DTYPE` where it is not the planned one */
  async putDense(name: string, tensor: Tensor, options: Abortable = {}): Promise<void> {
    await this.weights.write(name, tensor, options);
  }

  /**
   * Copies the other tensors and files of the source, writes config.json and what `documents` makes of the hashes of all that
   * (JSON by file name, for example `manifest.json`), brings everything to the disk and gives the directory its name.
   *
   * @param options.inputs SHA-256 by name that the files of the source are to have
   * @throws `LUTRA_E_INPUT_CHANGED` where one has another, `LUTRA_E_INTERNAL`, `LUTRA_E_DISK_FULL`, `LUTRA_E_IO`, and the reader's
   */
  async finish(
    documents: (outputs: Outputs) => Readonly<Record<string, object>> = () => ({}),
    { signal, inputs = {} }: Abortable & { inputs?: Readonly<Record<string, string>> } = {},
  ): Promise<StoredSizes> {
    const { plan, weights, output } = this;
    for (const [name, from] of plan.copied) await weights.copy(name, plan.source.reader, { from, signal });
    await weights.close({ signal });
    for (const name of plan.files) {
      const options = { expected: inputs[name], signal };
      await copyDocument(plan.source.directory, output.checkpoint, name, options);
    }
    await this.#document(configFile, plan.config, signal);
    const outputs = await this.#outputs(signal);
    for (const [name, content] of Object.entries(documents(outputs))) await this.#document(name, content, signal);
    const sizes = await storedSizes(output.checkpoint);
    await output.publish(signal);
    return sizes;
  }

  /** Everything that has been written, which must be all but the documents. */
  async #outputs(signal: AbortSignal | undefined): Promise<Outputs> {
    const { safetensors, files } = this.plan;
    const weights = [...safetensors.files.map(({ name }) => name), ...(safetensors.index === null ? [] : [indexFile])];
    // In the order of the plan: the order of writing need not be the same for every job.
    const checksums = [...safetensors.entries.keys()].map((name) => [name, this.weights.checksums.get(name)!] as const);
    return outputsOf(this.output.checkpoint, [configFile, ...weights, ...files], checksums, signal);
  }

  async #document(name: string, content: object, signal: AbortSignal | undefined): Promise<void> {
    const path = join(this.output.checkpoint, name);
    const text = `${JSON.stringify(content, null, 2)}\n`;
    await onFile(path, () => syncing(signal, () => writeFile(path, text, { flag: 'wx', flush: true })));
  }

  /** Closes the files, whole or not. Idempotent. */
  async abandon(): Promise<void> {
    await this.weights.abandon();
  }

  /** Removes everything that was written, unless `finish` ended. Idempotent. */
  async abort(): Promise<void> {
    await this.abandon();
    await this.output.discard();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.abort();
  }
}

const describe = (
  { kind, rows, cols, bits, groupSize, offsets }: QuantizedTensor['layout'],
  subBranch?: { rank: number; dtype: Dtype },
): string =>
  `${kind} [${rows}, ${cols}], ${bits} bits, group ${groupSize}, offsets ${offsets}${subBranch ? `, sub-branch of rank ${subBranch.rank} in ${subBranch.dtype}` : ''}`;

const describeTensor = ({ layout, subBranch }: QuantizedTensor): string =>
  describe(layout, subBranch ? { rank: rankOf(subBranch), dtype: subBranch.a.dtype } : undefined);

/** @throws `LUTRA_E_DISK_FULL` where the planned checkpoint will not fit beside what is there */
export const requireRoom = async (plan: CheckpointPlan, output: OutputDirectory): Promise<void> =>
  output.requireRoom(await bytesNeeded(plan));

async function bytesNeeded({ source, files, safetensors }: CheckpointPlan): Promise<number> {
  let bytes = reserveBytes;
  for (const { size } of safetensors.files) bytes += size;
  for (const name of files) {
    const path = join(source.directory, name);
    bytes += (await onFile(path, () => stat(path))).size;
  }
  return bytes;
}
