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
export { dequantize, type LutGemmOptions, lutGemm, lutGemmAsync, lutGemmErrorBound, type Mode } from './ops/index.js';
export { type Dtype, type QuantizedLayout, QuantizedTensor, Tensor, type TensorData } from './tensor/index.js';
