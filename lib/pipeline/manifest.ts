import { stat } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { basename } from 'node:path';
import { lutraError } from '../errors.js';
import {
  type Checkpoint,
  type CheckpointPlan,
  containedFile,
  formatVersion,
  hashFile,
  type Outputs,
  onFile,
} from '../formats/index.js';
import { addon, guarded } from '../native/index.js';
import type { Recipe } from '../quantization/index.js';
import type { CalibrationInputs } from './calibration-inputs.js';
import type { BadWindow, FinetuneResult, JobResults, LayerResult, TransformResult } from './job.js';
import type { JobIdentity } from './job-identity.js';
import type { Progress } from './progress.js';

const { version } = createRequire(import.meta.url)('../../package.json') as { version: string };

export const manifestFile = 'manifest.json';
export const runLogFile = 'run-log.json';

/** What a checkpoint was made from and what came of it: no time, path, host or number of threads. */
export interface Manifest {
  lutra: { version: string; formatVersion: number; isa: string };
  recipe: Recipe;
  calibration: CalibrationInputs['record'] | null;
  /** Bytes that a file of weights was let grow to. */
  shardBytes: number;
  /** SHA-256 by file name. */
  inputs: Record<string, string>;
  /** Hashes of everything in the directory but this and the run log. */
  outputs: Outputs;
  layers: LayerResult[];
  transforms: TransformResult[];
  finetune: FinetuneResult[];
  badWindows: BadWindow[];
}

/** What wrote a result. */
export const provenance = (): Manifest['lutra'] => ({
  version,
  formatVersion,
  isa: guarded(() => addon().describe()).isa,
});

export function manifestOf(
  { lutra, recipe, calibration, shardBytes, inputs }: JobIdentity,
  { layers, transforms, finetune, badWindows }: JobResults,
  outputs: Outputs,
): Manifest {
  return { lutra, recipe, calibration, shardBytes, inputs, layers, transforms, finetune, badWindows, outputs };
}

/** A file of the model that the checkpoint is made from. */
export interface InputFile {
  name: string;
  path: string;
  bytes: number;
}

/** Every file of the model that the checkpoint is made from. @throws `LUTRA_E_HEADER` where one lies elsewhere, `LUTRA_E_IO` */
export async function inputFiles(source: Checkpoint, plan: CheckpointPlan): Promise<InputFile[]> {
  const weights = new Set([...source.reader.entries.values()].map(({ file }) => basename(file)));
  const files: InputFile[] = [];
  for (const name of ['config.json', ...plan.files, ...[...weights].sort()]) {
    const path = await containedFile(source.directory, name, source.directory);
    const found = await onFile(path, () => stat(path));
    if (!found.isFile()) throw lutraError('LUTRA_E_IO', { message: 'a file of the model is none', where: path });
    files.push({ name, path, bytes: found.size });
  }
  return files;
}

/**
 * SHA-256 by file name: of files of weights through the handles that they are read by, since others may lie at their paths by now.
 *
 * @throws `LUTRA_E_NOT_FOUND`, `LUTRA_E_TRUNCATED`, `LUTRA_E_IO`
 */
export async function hashInputs(
  { reader }: Checkpoint,
  files: readonly InputFile[],
  signal: AbortSignal | undefined,
  report: (event: Progress) => void,
): Promise<Record<string, string>> {
  const totalBytes = files.reduce((sum, { bytes }) => sum + bytes, 0);
  const hashes: Record<string, string> = {};
  const opened = reader.files;
  let before = 0;
  for (const { name: file, path } of files) {
    let size = 0;
    const onBytes = (bytes: number) => {
      size = bytes;
      report({ phase: 'hash', file, bytes: before + bytes, totalBytes });
    };
    hashes[file] = await (opened.has(path) ? reader.hash(path, signal, onBytes) : hashFile(path, signal, onBytes));
    before += size;
  }
  return hashes;
}
