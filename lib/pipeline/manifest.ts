import { stat } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { basename } from 'node:path';
import {
  type Checkpoint,
  type CheckpointPlan,
  containedFile,
  formatVersion,
  hashFile,
  type Outputs,
  onFile,
} from '../formats/index.js';
import { addon } from '../native/index.js';
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
export const provenance = (): Manifest['lutra'] => ({ version, formatVersion, isa: addon().describe().isa });

export function manifestOf(
  { lutra, recipe, calibration, shardBytes, inputs }: JobIdentity,
  { layers, transforms, finetune, badWindows }: JobResults,
  outputs: Outputs,
): Manifest {
  return { lutra, recipe, calibration, shardBytes, inputs, layers, transforms, finetune, badWindows, outputs };
}

/** Hashes every file of the model that the checkpoint is made from. @throws `LUTRA_E_HEADER` where one lies elsewhere, `LUTRA_E_IO` */
export async function hashInputs(
  source: Checkpoint,
  plan: CheckpointPlan,
  signal: AbortSignal | undefined,
  report: (event: Progress) => void,
): Promise<Record<string, string>> {
  const weights = new Set([...source.reader.entries.values()].map(({ file }) => basename(file)));
  const files = ['config.json', ...plan.files, ...[...weights].sort()];
  const paths = new Map<string, string>();
  let totalBytes = 0;
  for (const file of files) {
    const path = await containedFile(source.directory, file, source.directory);
    totalBytes += (await onFile(path, () => stat(path))).size;
    paths.set(file, path);
  }
  const hashes: Record<string, string> = {};
  let before = 0;
  for (const [file, path] of paths) {
    let size = 0;
    hashes[file] = await hashFile(path, signal, (bytes) => {
      size = bytes;
      report({ phase: 'hash', file, bytes: before + bytes, totalBytes });
    });
    before += size;
  }
  return hashes;
}
