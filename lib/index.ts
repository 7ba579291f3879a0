import { addonAsIs } from './native/index.js';

export {
  LutraDeviceError,
  LutraError,
  type LutraErrorCode,
  LutraFormatError,
  LutraInputError,
  LutraInternalError,
  LutraNumericError,
  LutraResourceError,
} from './errors.js';
export {
  type DivergenceSummary,
  type Evaluation,
  type EvaluationOptions,
  type EvaluationProgress,
  evaluate,
} from './evaluation/index.js';
export { Checkpoint, type CheckpointTensor, type ReadLimits, readCheckpoint } from './formats/index.js';
export {
  type FinishReason,
  type GeneratedToken,
  type GenerationOptions,
  type LoadOptions,
  loadModel,
  Model,
} from './inference/index.js';
export {
  type CudaReport,
  type CudaState,
  type Diagnosis,
  doctor,
  type LutGemmWay,
  nativeMemory,
} from './native/index.js';
export {
  dequantize,
  type LutGemmOptions,
  lutGemm,
  lutGemmAsync,
  lutGemmErrorBound,
  type Mode,
  type MultiplyOptions,
  PreparedActivations,
  type PrepareOptions,
  type ProductOptions,
  prepareActivations,
  stackRows,
} from './ops/index.js';
export {
  type BadWindow,
  type CalibrationJob,
  type Difference,
  type ExpectedInputs,
  type FinetuneResult,
  type LayerResult,
  type Manifest,
  type MemoryEstimate,
  type MemoryParts,
  type PlannedBlock,
  type PlannedLayer,
  type Progress,
  planQuantization,
  type QuantizationJob,
  type QuantizationPlan,
  type QuantizationResult,
  type QuantizedLayer,
  quantizeModel,
  type Repetition,
  recordedJob,
  type TimeEstimate,
  type UnfinishedWork,
  type Verification,
  type VerifyOptions,
  verifyCheckpoint,
} from './pipeline/index.js';
export {
  type BinaryPlanes,
  type LayerReport,
  normalizeRecipe,
  type PlanesOptions,
  packPlanes,
  type QuantizeOptions,
  quantize,
  type Recipe,
  type RecipeInput,
  type Statistics,
  toPlanes,
} from './quantization/index.js';
export {
  type Dtype,
  type QuantizedLayout,
  QuantizedTensor,
  type SubBranch,
  type SubBranchTensors,
  Tensor,
  type TensorData,
} from './tensor/index.js';

// Where no binary fits, the import says so, not the first use somewhere else.
addonAsIs();
