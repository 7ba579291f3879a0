export { type AllocatedLayer, type Allocation, allocateWidths, type WidthOption, withWidths } from './allocation.js';
export { nonFinite, refuseNonFinite } from './finite.js';
export type { HeadStatistics } from './joined-rows.js';
export type {
  BlockSample,
  BlockTransform,
  BlockWindows,
  Call,
  Finetune,
  FinetuneInput,
  FinetuneReport,
  Grid,
  LowRank,
  LowRankInput,
  LowRankResult,
  MethodChoice,
  ModelTransform,
  Need,
  ScaleDtype,
  Solution,
  SolvedLayer,
  Solver,
  SolverInput,
  Statistics,
  TensorSource,
  Transform,
  Warning,
} from './method.js';
export { unmeasuredWork } from './method.js';
export { gridOf, isPinned, matchesLayer, type Override } from './overrides.js';
export { layoutOf, pack } from './pack.js';
export type { PairDtype } from './pair.js';
export { asFloat32, energy, findNonFinite } from './passes.js';
export { type BinaryPlanes, type PlanesOptions, packPlanes, toPlanes } from './planes.js';
export { proxyLoss } from './proxy-loss.js';
export { type QuantizeOptions, quantize } from './quantize.js';
export { normalizeRecipe, optionsOf, type Recipe, type RecipeInput, storageOf } from './recipe.js';
export { findMethod, findSolver, finetunes, lowRanks, solvers, transforms } from './registry.js';
export { chooseScaleDtype } from './scale-dtype.js';
export { measureWidths } from './sensitivity.js';
export {
  disposeSolved,
  isSequential,
  type LayerReport,
  needsOf,
  type PreparedInputs,
  prepareInputs,
  type SolvedMatrix,
  solveHeads,
  solveMatrix,
} from './solve-matrix.js';
export { pairOf, type SubBranchReport } from './sub-branch.js';
