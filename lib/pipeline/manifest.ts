import { createRequire } from 'node:module';
import { formatVersion, type Outputs } from '../formats/index.js';
import { addon, guarded } from '../native/index.js';
import type { Recipe } from '../quantization/index.js';
import type { CalibrationInputs } from './calibration-inputs.js';
import type { BadWindow, FinetuneResult, JobResults, LayerResult, TransformResult } from './job.js';
import type { JobIdentity } from './job-identity.js';

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
