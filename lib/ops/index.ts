export { checkPacked, dequantize, type LutGemmOptions, lutGemm, lutGemmAsync, lutGemmErrorBound } from './lut-gemm.js';
export { checkOptions } from './options.js';
export { type MultiplyOptions, PreparedActivations, type PrepareOptions, prepareActivations } from './prepared.js';
export {
  type AttentionOptions,
  checkBatchInvariant,
  checkMode,
  checkThreads,
  type Mode,
  maxThreads,
  type ProductOptions,
  Program,
  type RunOptions,
  type Weight,
} from './program.js';
export { stackRows } from './stack-rows.js';
