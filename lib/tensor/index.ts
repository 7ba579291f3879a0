export {
  checkLayout,
  codesBytes,
  offsetsElements,
  type QuantizedLayout,
  QuantizedTensor,
  scalesElements,
} from './quantized-tensor.js';
export { checkRank, rankOf, type SubBranch, type SubBranchTensors, subBranchTensors } from './sub-branch.js';
export { type Dtype, dtypeBytes, elements, Tensor, type TensorData } from './tensor.js';
export { triangleElements, trianglePlace, triangleRows } from './triangle.js';
