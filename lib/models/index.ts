export { type LlamaConfig, parseConfig } from './config.js';
export {
  type BlockPart,
  modelFlow,
  type ScalingGroup,
  type Space,
  scalingGroups,
  type TensorFlow,
} from './flow.js';
export {
  type BlockGraph,
  buildGraph,
  checkNames,
  checkTensor,
  type LinearNode,
  type ModelGraph,
  rolesOf,
  untied,
} from './graph.js';
export {
  type AttentionInputs,
  type AttentionTap,
  type BlockActivations,
  type BlockCache,
  BlockScratch,
  type BlockStep,
  createBlockCache,
  denseWeight,
  recordBlock,
  recordEmbedding,
  recordHead,
  recordPart,
  recordQueriesAndKeys,
  type Tap,
} from './llama.js';
export {
  type BlockBackward,
  type BlockTape,
  createBlockTape,
  recordBlockBackward,
  recordBlockForward,
  recordBlockLoss,
  recordHeadBackward,
} from './llama-backward.js';
export { ropeFrequencies, ropeTable } from './rope.js';
export type { RopeScaling } from './rope-scaling.js';
