export {
  checkLayout,
  codesBytes,
  groupCount,
  offsetsElements,
  paddedRows,
  type QuantizedLayout,
  QuantizedTensor,
  scalesElements,
  tileRows,
} from './quantized-tensor.js';
export { type Dtype, dtypeBytes, elements, Tensor, type TensorData } from './tensor.js';
