export { Checkpoint, type CheckpointTensor, readCheckpoint, type StoredSizes, storedSizes } from './checkpoint.js';
export { type ClaimOptions, type Leftover, OutputDirectory } from './output-directory.js';
export { checksumText, type Outputs } from './outputs.js';
export { bytesOf } from './parts.js';
export { type CheckpointPlan, type CheckpointPlanOptions, planCheckpoint, type StoredRecipe } from './plan.js';
export { formatVersion, type QuantizationConfig, type QuantizedEntry } from './quantization-config.js';
export { CheckpointWriter, checkOutput, type OutputOptions, requireRoom } from './writer.js';
