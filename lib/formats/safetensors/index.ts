export { crc32c } from './checksum.js';
export { nativeDtypes, type SafetensorsDtype, storedDtypes, tensorBytes } from './dtypes.js';
export type { TensorEntry } from './header.js';
export { indexFile } from './names.js';
export {
  dataAlignment,
  defaultShardBytes,
  type PlannedTensor,
  type PlanOptions,
  planSafetensors,
  type SafetensorsPlan,
} from './plan.js';
export { openSafetensors, SafetensorsReader } from './reader.js';
export { SafetensorsWriter } from './writer.js';
