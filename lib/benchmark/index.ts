export { asyncBurst, type BurstLength, burst } from './burst.js';
export {
  type BenchCase,
  type BenchPlan,
  type CacheState,
  cacheStates,
  caseName,
  expand,
  weightsName,
} from './cases.js';
export type { Entry, Peer } from './entries.js';
export { type MachineCard, machineCard } from './machine-card.js';
export { Random } from './random.js';
export { type Contestant, defaultEffort, type Effort, interleave } from './rounds.js';
export { type BenchRow, benchRow, type EntryRow, entryRow, linesOf, tableOf } from './rows.js';
export { modelShapes, parseShape, type Shape, shapeName } from './shapes.js';
export { median, normalizedMeanSquaredError, quantile, ratioOfRounds, type Summary, summarize } from './statistics.js';
export { type BenchOptions, runCases, Workbench } from './workbench.js';
