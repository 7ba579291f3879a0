import {
  type BenchCase,
  benchRow,
  type Effort,
  type Entry,
  type EntryRow,
  entryRow,
  interleave,
  median,
  peerEntries,
  ratioOfRounds,
  type Summary,
  sharedInputEntry,
  type Workbench,
} from '../../lib/benchmark/index.js';
import type { OnnxRuntime } from '../peers/onnxruntime.js';
import { type DenseCase, denseEntry, peakContestant } from './dense.js';
import type { Bound, Goal } from './goals.js';

/** At least three bursts of twenty calls of everyone, and three seconds of them. */
const effort: Effort = { rounds: 3, milliseconds: 3000, burst: { calls: 20, milliseconds: 10 } };

export interface GoalResult {
  goal: string;
  bound: Bound | null;
  /** Over the rounds of bursts. */
  ratio: Summary;
  /** Null where there is nothing to reach, or the peer failed. Not met where a result of lutra's is further off than its mode may be. */
  met: boolean | null;
  /** Ours first, then what it was compared with. */
  rows: EntryRow[];
}

interface Competitor {
  one: BenchCase | DenseCase;
  entry: Entry;
}

/** Measures one goal. @param ort what goals against the peer need */
export async function measureGoal(goal: Goal, bench: Workbench, ort: OnnxRuntime | null): Promise<GoalResult> {
  const limit = goal.against.kind === 'peak' ? peakContestant(goal.ours.threads) : bench.probe(goal.ours.threads);
  const competitors: Competitor[] = [];
  try {
    for await (const competitor of competitorsOf(goal, bench, ort)) competitors.push(competitor);
    const entries = competitors.map(({ entry }) => entry);
    const [limitRounds = [], ...rounds] = await interleave([limit, ...entries], effort);
    const rows: EntryRow[] = [];
    for (const [i, { one, entry }] of competitors.entries()) {
      const own = rounds[i] ?? [];
      rows.push('op' in one ? await entryRow(entry, own) : await benchRow(one, entry, own, limit, limitRounds));
    }
    const ratio = ratioOf(goal, rounds, limitRounds, (entries[0]?.work ?? Number.NaN) / limit.work);
    const right = rows.every((row, i) => row.by !== 'lutra' || isRight(competitors[i]?.one, row));
    const failed = rows.some(({ failure }) => failure !== undefined);
    const met = failed ? null : goal.bound && right && reaches(goal.bound, ratio.median);
    return { goal: goal.name, bound: goal.bound, ratio, met, rows };
  } finally {
    for (const { entry } of competitors) await entry.dispose();
  }
}

/** Ours first. */
async function* competitorsOf(
  { ours, against }: Goal,
  bench: Workbench,
  ort: OnnxRuntime | null,
): AsyncGenerator<Competitor> {
  if ('op' in ours) return yield { one: ours, entry: denseEntry(ours) };
  if (against.kind === 'apart') {
    const one = { ...ours, shape: { ...ours.shape, rows: 3 * ours.shape.rows } };
    for (const way of ['prepared once', 'three calls', 'stacked'] as const)
      yield { one, entry: await sharedInputEntry(ours, way) };
    return;
  }
  yield { one: ours, entry: await bench.entry(ours) };
  if (against.kind === 'own') yield { one: against.other, entry: await bench.entry(against.other) };
  if (against.kind === 'ort')
    for (const kernel of against.kernels) {
      const one = { ...ours, bits: against.bits };
      for (const entry of ort ? await peerEntries(ort.name, ort.kernelEntries(one, kernel)) : []) yield { one, entry };
    }
}

/** @param work ours, in units of the limit's */
function ratioOf({ against }: Goal, rounds: number[][][], limitRounds: number[][], work: number): Summary {
  const [ours = [], ...others] = rounds;
  if (against.kind === 'own' || against.kind === 'apart') return ratioOfRounds(ours, others[0] ?? []);
  if (against.kind === 'ort') {
    const measured = others.filter((rounds) => rounds.flat().length > 0);
    const fastest = measured.toSorted((a, b) => median(a.flat()) - median(b.flat()))[0] ?? [];
    return ratioOfRounds(fastest, ours);
  }
  const { median: middle, p10, p90, samples } = ratioOfRounds(limitRounds, ours);
  return { median: work * middle, p10: work * p10, p90: work * p90, samples };
}

/** Normalized mean squared errors that the modes promise; dense products in fp32 are exact mode's. */
const errorBounds = { exact: 1e-12, accurate: 1e-7, fast: 2e-4 };
const isRight = (one: BenchCase | DenseCase | undefined, row: EntryRow): boolean =>
  row.normalizedMeanSquaredError <= errorBounds[one && 'mode' in one ? one.mode : 'exact'];

const reaches = (bound: Bound, ratio: number): boolean =>
  'atLeast' in bound ? ratio >= bound.atLeast : ratio <= bound.atMost;
