export type { Call, Grid, Need, ScaleDtype, Solution, Solver, SolverInput, Statistics, Warning } from './method.js';
export { gridOf, matchesLayer, type Override } from './overrides.js';
export { layoutOf } from './pack.js';
export { asFloat32 } from './passes.js';
export { type BinaryPlanes, type PlanesOptions, packPlanes, toPlanes } from './planes.js';
export {
  type LayerReport,
  needsOf,
  type PreparedInputs,
  prepareInputs,
  type QuantizeOptions,
  quantize,
  quantizeMatrix,
  refuseNonFinite,
} from './quantize.js';
export { normalizeRecipe, type Recipe, type RecipeInput } from './recipe.js';
export { findSolver, solvers } from './registry.js';
export { chooseScaleDtype } from './scale-dtype.js';
