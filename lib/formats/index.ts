export { bytesText } from './bytes-text.js';
export { isSyncing, replaceFile, requireRegularFile, syncing } from './durable.js';
export { hashFile } from './hash-file.js';
export { readModelJson, readOptionalModelJson, readOwnJson } from './json-file.js';
export { defaultLimits, type ReadLimits } from './limits.js';
export {
  bytesOf,
  Checkpoint,
  type CheckpointPlan,
  type CheckpointPlanOptions,
  type CheckpointTensor,
  CheckpointWriter,
  checkOutput,
  checksumText,
  formatVersion,
  type Leftover,
  OutputDirectory,
  type Outputs,
  planCheckpoint,
  type QuantizationConfig,
  type QuantizedEntry,
  readCheckpoint,
  requireRoom,
  type StoredRecipe,
  type StoredSizes,
  storedSizes,
} from './lutra/index.js';
export { requireDirectory } from './model-directory.js';
export { closeFile, containedFile, readToEnd, readWholeFile, regularFileBytes } from './open-file.js';
export {
  crc32c,
  defaultShardBytes,
  nativeDtypes,
  openSafetensors,
  type PlannedTensor,
  planSafetensors,
  type SafetensorsDtype,
  type SafetensorsPlan,
  type SafetensorsReader,
  SafetensorsWriter,
  storedDtypes,
  type TensorEntry,
} from './safetensors/index.js';
export { issueText } from './schema-issue.js';
export { readSettings } from './settings.js';
export type { JsonObject, JsonValue } from './strict-json.js';
export { onFile } from './system-error.js';
