export { givenBack } from './answer-abort.js';
export type {
  BadWindow,
  CalibrationJob,
  ExpectedInputs,
  FinetuneResult,
  LayerResult,
  QuantizationJob,
  QuantizationResult,
  QuantizedLayer,
  TransformResult,
} from './job.js';
export { type Manifest, provenance, runLogFile } from './manifest.js';
export type { MemoryEstimate, MemoryParts } from './memory-estimate.js';
export { type PlannedBlock, type PlannedLayer, planQuantization, type QuantizationPlan } from './plan.js';
export { needsCalibration } from './prepare-job.js';
export type { Progress, ProgressPhase } from './progress.js';
export { quantizeModel } from './quantize-model.js';
export { readManifest } from './read-manifest.js';
export { type Repetition, recordedJob } from './recorded-job.js';
export type { TimeEstimate } from './time-estimate.js';
export type { UnfinishedWork } from './unfinished-work.js';
export { type Difference, type Verification, type VerifyOptions, verifyCheckpoint } from './verify-checkpoint.js';
