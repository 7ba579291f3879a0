import { open, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { lutraError } from '../../errors.js';
import { type Dtype, type QuantizedTensor, rankOf, type Tensor } from '../../tensor/index.js';
import { containedFile, openFile, readFully, writeFully } from '../open-file.js';
import { indexFile, SafetensorsWriter } from '../safetensors/index.js';
import { quoted } from '../strict-json.js';
import { onFile } from '../system-error.js';
import { configFile } from './checkpoint.js';
import { OutputDirectory } from './output-directory.js';
import { type Outputs, outputsOf } from './outputs.js';
import { partsOf } from './parts.js';
import type { CheckpointPlan } from './plan.js';

interface Abortable {
  signal?: AbortSignal | undefined;
}

/** Room for config.json, the index and the documents of `finish`, whose sizes are not known beforehand. */
const reserveBytes = 2 ** 20;
const copyBytes = 2 ** 20;

/**
 * Writes a planned checkpoint: `put` every quantized matrix and `putDense` every replaced tensor, in any order, then `finish`.
 * Nothing has the output's name before `finish` ends; whatever fails, `abort` (or leaving a scope that holds the writer with
 * `await using`) removes all traces.
 */
export class CheckpointWriter {
  private constructor(
    readonly plan: CheckpointPlan,
    private readonly output: OutputDirectory,
    private readonly weights: SafetensorsWriter,
  ) {}

  /** Claims `out` and makes its files under `<out>.partial`. @throws `LUTRA_E_SAME_PATH`, `LUTRA_E_EXISTS`, `LUTRA_E_DISK_FULL`, `LUTRA_E_IO` */
  static async create(
    plan: CheckpointPlan,
    out: string,
    options: { overwrite?: boolean } = {},
  ): Promise<CheckpointWriter> {
    const { overwrite = false } = options;
    const source = plan.source.directory;
    const output = await OutputDirectory.claim(out, { source, overwrite, bytes: await bytesNeeded(plan) });
    try {
      return new CheckpointWriter(plan, output, await SafetensorsWriter.create(output.partial, plan.safetensors));
    } catch (error) {
      await output.discard();
      throw error;
    }
  }

  /** Where the files grow: scratch files may lie here too, as long as they are gone before `finish`. */
  get directory(): string {
    return this.output.partial;
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
   */
  async finish(
    documents: (outputs: Outputs) => Readonly<Record<string, object>> = () => ({}),
    options: Abortable = {},
  ): Promise<void> {
    const { plan, weights, output } = this;
    for (const [name, from] of plan.copied) await weights.copy(name, plan.source.reader, { from, ...options });
    await weights.close();
    for (const name of plan.files) {
      options.signal?.throwIfAborted();
      await copyDocument(plan.source.directory, output.partial, name);
    }
    await this.#document(configFile, plan.config);
    const outputs = await this.#outputs(options.signal);
    for (const [name, content] of Object.entries(documents(outputs))) await this.#document(name, content);
    options.signal?.throwIfAborted();
    await output.publish();
  }

  /** Everything that has been written, which must be all but the documents. */
  async #outputs(signal: AbortSignal | undefined): Promise<Outputs> {
    const { safetensors, files } = this.plan;
    const weights = [...safetensors.files.map(({ name }) => name), ...(safetensors.index === null ? [] : [indexFile])];
    // In the order of the plan: the order of writing need not be the same for every job.
    const checksums = [...safetensors.entries.keys()].map((name) => [name, this.weights.checksums.get(name)!] as const);
    return outputsOf(this.directory, [configFile, ...weights, ...files], checksums, signal);
  }

  async #document(name: string, content: object): Promise<void> {
    const path = join(this.directory, name);
    await onFile(path, () => writeFile(path, `${JSON.stringify(content, null, 2)}\n`, { flag: 'wx', flush: true }));
  }

  /** Removes everything that was written, unless `finish` ended. Idempotent. */
  async abort(): Promise<void> {
    await this.weights.abandon();
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

async function bytesNeeded({ source, files, safetensors }: CheckpointPlan): Promise<number> {
  let bytes = reserveBytes;
  for (const { size } of safetensors.files) bytes += size;
  for (const name of files) {
    const path = join(source.directory, name);
    bytes += (await onFile(path, () => stat(path))).size;
  }
  return bytes;
}

/** Copies one file of the source, which must lie in it, and brings it to the disk. Modes are not copied. */
async function copyDocument(from: string, to: string, name: string): Promise<void> {
  const source = await openFile(await containedFile(from, name, from));
  const path = join(to, name);
  try {
    const copy = await onFile(path, () => open(path, 'wx'));
    try {
      const buffer = new Uint8Array(Math.min(copyBytes, source.size));
      for (let at = 0; at < source.size; at += buffer.length) {
        const piece = buffer.subarray(0, source.size - at);
        await readFully(source, piece, at);
        await writeFully(copy, piece, at, path);
      }
      await onFile(path, () => copy.sync());
    } finally {
      await copy.close();
    }
  } finally {
    await source.handle.close();
  }
}
