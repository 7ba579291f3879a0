export { dequantize, type LutGemmOptions, lutGemm, lutGemmAsync, lutGemmErrorBound } from './lut-gemm.js';
export {
  type AttentionOptions,
  checkMode,
  checkThreads,
  type Mode,
  maxThreads,
  Program,
  type RunOptions,
  type Weight,
} from './program.js';
