export type { FinishReason, GeneratedToken, GenerationOptions } from './generation.js';
export { loadTokenizer, type ReadTokenizer, readTokenizer } from './load-tokenizer.js';
export { type LoadOptions, loadModel, Model } from './model.js';
export { type Candidates, Sampler } from './sampler.js';
export type { SamplingOptions } from './sampling-options.js';
export type { Session, SessionOptions } from './session.js';
