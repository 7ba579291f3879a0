export { type LlamaConfig, parseConfig } from './config.js';
export {
  type BlockGraph,
  buildGraph,
  checkNames,
  checkTensor,
  type LinearNode,
  type ModelGraph,
} from './graph.js';
export {
  type BlockActivations,
  type BlockCache,
  BlockScratch,
  type BlockStep,
  createBlockCache,
  denseWeight,
  recordBlock,
  recordEmbedding,
  recordHead,
  type Tap,
} from './llama.js';
export {
  type BlockBackward,
  type BlockTape,
  createBlockTape,
  recordBlockBackward,
  recordBlockLoss,
} from './llama-backward.js';
export { ropeFrequencies, ropeTable } from './rope.js';
export type { RopeScaling } from './rope-scaling.js';
