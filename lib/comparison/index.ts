export { type ComparisonJob, type ComparisonProgress, compareRecipes, type TextToCompare, titleOf } from './compare.js';
export type {
  CalibrationSettings,
  ComparedText,
  Comparison,
  ComparisonRun,
  Failure,
  RunMeasures,
} from './comparison.js';
export { type Histogram, HistogramCollector, type WeightHistograms } from './histograms.js';
export { type NamedRecipe, planRuns, type Sweep } from './plan.js';
export {
  type ComparisonRow,
  type Estimate,
  estimate,
  type LayerRow,
  type RowMeasures,
  summarize,
  type TextRow,
} from './summary.js';
