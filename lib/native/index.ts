export * from './addon.js';
export { cancellable } from './cancellation.js';
export {
  type CudaReport,
  type CudaState,
  cudaIndex,
  cudaPath,
  cudaStates,
  type Device,
  probeCuda,
  requireCuda,
} from './cuda.js';
export { type Diagnosis, doctor, nativeMemory } from './doctor.js';
export { fromNative, guarded } from './failure.js';
export { addon, addonAsIs, load, platformName } from './loader.js';
