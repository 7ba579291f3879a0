export type { CalibrationJob, LayerResult, QuantizationJob, QuantizationResult } from './job.js';
export type { Manifest } from './manifest.js';
export type { Progress, ProgressPhase } from './progress.js';
export { quantizeModel } from './quantize-model.js';
