export type { StreamDecoder } from './stream-decoder.js';
export { type EncodeOptions, Tokenizer } from './tokenizer.js';
