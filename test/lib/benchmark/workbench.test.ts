import { describe, expect, it } from 'vitest';
import {
  type BenchCase,
  caseName,
  defaultEffort,
  type Effort,
  expand,
  type Peer,
  runCases,
  tableOf,
  Workbench,
} from '../../../lib/benchmark/index.js';
import { nativeMemory } from '../../../lib/native/index.js';

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
const brief: Effort = { rounds: 1, milliseconds: 1, burst: { calls: 1, milliseconds: 0 } };

describe('the workbench', () => {
  it.each(cases.map((one) => [caseName(one), one] as const))('checks the very result it timed: %s', async (_, one) => {
    using bench = new Workbench();
    const entry = await bench.entry(one);
    expect(await entry.error(), 'nothing is computed yet').toBe(1);
    await entry.burst({ calls: 1, milliseconds: 0 });
    expect(await entry.error()).toBeLessThan(bounds[one.mode]);
    await entry.dispose();
  });

  it('counts what a sub-branch adds to the bytes of a matrix', async () => {
    using bench = new Workbench();
    const [plain, ranked] = [await bench.entry(first), await bench.entry({ ...first, rank: 3 })];
    expect(ranked.work - plain.work).toBe(2 * 3 * (101 + 70));
  });

  it('times nothing where one of the cases has no weights', async () => {
    const rows: unknown[] = [];
    const unusable = { ...first, groupSize: 31 };
    const run = runCases([first, unusable], { effort: defaultEffort, onRow: (row) => rows.push(row) });
    await expect(run).rejects.toMatchObject({ code: 'LUTRA_E_GROUP_SIZE' });
    expect(rows).toEqual([]);
  });

  const tiny: BenchCase = { ...first, shape: { rows: 1, cols: 16 }, groupSize: 16, caches: 'cold' };

  it('rotates over no more tiny matrices than it can make in a moment, and the row tells their bytes', async () => {
    const [row] = await runCases([tiny], { effort: brief });
    expect(row?.matrices).toBe(4096);
    expect(row?.rotatedBytes).toBeLessThan(1e9);
    const { head, cells } = tableOf(row ? [row] : []);
    expect(cells[0]?.[head.indexOf('caches')]).toMatch(/^cold \(\d.* MB\)$/);
    expect(cells[0]?.[head.indexOf('of memory')]).toBe('-');
  });

  it('stops within making cold weights, and leaves none behind', async () => {
    using bench = new Workbench();
    const controller = new AbortController();
    const before = nativeMemory();
    const made = bench.entry({ ...first, shape: { rows: 512, cols: 512 }, caches: 'cold' }, controller.signal);
    controller.abort(new Error('enough'));
    await expect(made).rejects.toThrow('enough');
    expect(nativeMemory()).toBe(before);
  });

  it('goes on where a peer cannot begin or dies, and says why in a row', async () => {
    const peer = (entries: Peer['entries']): Peer => ({ name: 'other', entries, async dispose() {} });
    const dead = peer(async () => {
      throw new Error('it is gone');
    });
    const burst = () => {
      throw new Error('it died');
    };
    const entry = { by: 'other', mode: 'lookUp', work: 1, matrices: 1, burst, error: () => 0, dispose() {} };
    const dying = peer(async () => [entry]);
    const rows = await runCases([first], { effort: brief, peers: [dead, dying] });
    expect(rows.map(({ by, failure }) => [by, failure])).toEqual([
      ['lutra', undefined],
      ['other', 'it is gone'],
      ['other', 'it died'],
    ]);
    expect(rows[0]?.normalizedMeanSquaredError).toBeLessThan(bounds.exact);
    const { cells } = tableOf(rows);
    expect(cells.map((row) => row.at(-1))).toEqual([expect.any(String), 'it is gone', 'it died']);
    expect(cells.flat().join()).not.toContain('NaN');
  });
});
