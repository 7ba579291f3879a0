export type {
  CalibrationJob,
  FinetuneResult,
  LayerResult,
  QuantizationJob,
  QuantizationResult,
  QuantizedLayer,
  TransformResult,
} from './job.js';
export { type Manifest, provenance } from './manifest.js';
export type { Progress, ProgressPhase } from './progress.js';
export { needsCalibration, quantizeModel } from './quantize-model.js';
