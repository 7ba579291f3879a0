export { defaultLimits, type ReadLimits } from './limits.js';
export {
  openSafetensors,
  type SafetensorsDtype,
  type SafetensorsReader,
  type TensorEntry,
} from './safetensors/index.js';
export type { JsonObject, JsonValue } from './strict-json.js';
