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
export type { Entry } from './entries.js';
export { type MachineCard, machineCard } from './machine-card.js';
export { type Peer, peerEntries } from './peers.js';
export { Random } from './random.js';
export { type Contestant, defaultEffort, type Effort, interleave } from './rounds.js';
export { type BenchRow, benchRow, type EntryRow, entryRow, linesOf, tableOf } from './rows.js';
export { modelShapes, parseShape, type Shape, shapeName } from './shapes.js';
export { sharedInputEntry } from './shared-input.js';
export { median, normalizedMeanSquaredError, quantile, ratioOfRounds, type Summary, summarize } from './statistics.js';
export { coldCount } from './weights.js';
export { type RunOptions, runCases, Workbench } from './workbench.js';
