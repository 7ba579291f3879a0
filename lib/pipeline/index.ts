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
export type { Progress, ProgressPhase } from './progress.js';
export { needsCalibration, quantizeModel } from './quantize-model.js';
export { readManifest } from './read-manifest.js';
export { type Repetition, recordedJob } from './recorded-job.js';
export { type Difference, type Verification, type VerifyOptions, verifyCheckpoint } from './verify-checkpoint.js';
