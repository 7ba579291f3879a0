export type { StreamDecoder } from './stream-decoder.js';
export { type EncodeOptions, loadTokenizer, Tokenizer } from './tokenizer.js';
