export {
  type DivergenceSummary,
  type Evaluation,
  type EvaluationOptions,
  type EvaluationProgress,
  evaluate,
} from './evaluate.js';
export type { MeasuredModel, MeasuredSession } from './measured-model.js';
export type { Convention } from './sequences.js';
