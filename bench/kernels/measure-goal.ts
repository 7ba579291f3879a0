import {
  type BenchCase,
  benchRow,
  type Effort,
  type Entry,
  type EntryRow,
  entryRow,
  interleave,
  median,
  ratioOfRounds,
  type Summary,
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
  /** Null where there is nothing to reach. */
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
  const competitors = await competitorsOf(goal, bench, ort);
  try {
    const entries = competitors.map(({ entry }) => entry);
    const [limitRounds = [], ...rounds] = await interleave([limit, ...entries], effort);
    const rows: EntryRow[] = [];
    for (const [i, { one, entry }] of competitors.entries()) {
      const own = rounds[i] ?? [];
      rows.push('op' in one ? await entryRow(entry, own) : await benchRow(one, entry, own, limit, limitRounds));
    }
    const ratio = ratioOf(goal, rounds, limitRounds, (entries[0]?.work ?? Number.NaN) / limit.work);
    return { goal: goal.name, bound: goal.bound, ratio, met: goal.bound && reaches(goal.bound, ratio.median), rows };
  } finally {
    for (const { entry } of competitors) await entry.dispose();
  }
}

/** Ours first. */
async function competitorsOf(
  { ours, against }: Goal,
  bench: Workbench,
  ort: OnnxRuntime | null,
): Promise<Competitor[]> {
  if ('op' in ours) return [{ one: ours, entry: denseEntry(ours) }];
  const competitors: Competitor[] = [{ one: ours, entry: bench.entry(ours) }];
  if (against.kind === 'own') competitors.push({ one: against.other, entry: bench.entry(against.other) });
  if (against.kind === 'ort')
    for (const kernel of against.kernels) {
      const one = { ...ours, bits: against.bits };
      const entry = await ort?.entry(one, kernel);
      if (entry) competitors.push({ one, entry });
    }
  return competitors;
}

/** @param work ours, in units of the limit's */
function ratioOf({ against }: Goal, rounds: number[][][], limitRounds: number[][], work: number): Summary {
  const [ours = [], ...others] = rounds;
  if (against.kind === 'own') return ratioOfRounds(ours, others[0] ?? []);
  if (against.kind === 'ort') {
    const fastest = others.toSorted((a, b) => median(a.flat()) - median(b.flat()))[0] ?? [];
    return ratioOfRounds(fastest, ours);
  }
  const { median: middle, p10, p90, samples } = ratioOfRounds(limitRounds, ours);
  return { median: work * middle, p10: work * p10, p90: work * p90, samples };
}

const reaches = (bound: Bound, ratio: number): boolean =>
  'atLeast' in bound ? ratio >= bound.atLeast : ratio <= bound.atMost;
