export {
  checkLayout,
  codesBytes,
  offsetsElements,
  type QuantizedLayout,
  QuantizedTensor,
  scalesElements,
} from './quantized-tensor.js';
export { type Dtype, dtypeBytes, elements, Tensor, type TensorData } from './tensor.js';
