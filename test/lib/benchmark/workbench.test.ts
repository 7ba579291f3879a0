import { describe, expect, it } from 'vitest';
import { type BenchCase, caseName, defaultEffort, expand, runCases, Workbench } from '../../../lib/benchmark/index.js';

const bounds = { exact: 1e-12, accurate: 1e-7, fast: 2e-4 };
const cases = expand({
  shapes: [{ rows: 101, cols: 70 }],
  kinds: ['uniform', 'planes'],
  bits: [2, 3, 4],
  groupSizes: [32],
  ranks: [0, 3],
  modes: ['exact', 'accurate', 'fast'],
  tokens: [1, 5],
  threads: [1],
  caches: ['hot'],
  batchInvariant: false,
});
const [first] = cases as [BenchCase];

describe('the workbench', () => {
  it.each(cases.map((one) => [caseName(one), one] as const))('checks the very result it timed: %s', async (_, one) => {
    using bench = new Workbench();
    const entry = bench.entry(one);
    expect(await entry.error(), 'nothing is computed yet').toBe(1);
    await entry.burst({ calls: 1, milliseconds: 0 });
    expect(await entry.error()).toBeLessThan(bounds[one.mode]);
    await entry.dispose();
  });

  it('counts what a sub-branch adds to the bytes of a matrix', () => {
    using bench = new Workbench();
    const [plain, ranked] = [bench.entry(first), bench.entry({ ...first, rank: 3 })];
    expect(ranked.work - plain.work).toBe(2 * 3 * (101 + 70));
  });

  it('times nothing where one of the cases has no weights', async () => {
    const rows: unknown[] = [];
    const unusable = { ...first, groupSize: 31 };
    const run = runCases([first, unusable], { effort: defaultEffort, onRow: (row) => rows.push(row) });
    await expect(run).rejects.toMatchObject({ code: 'LUTRA_E_GROUP_SIZE' });
    expect(rows).toEqual([]);
  });
});
