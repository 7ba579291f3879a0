export { nativeDtypes, type SafetensorsDtype, storedDtypes, tensorBytes } from './dtypes.js';
export type { TensorEntry } from './header.js';
export { indexFile, openSafetensors, SafetensorsReader, singleFile } from './reader.js';
