import { describe, expect, it } from 'vitest';
import { type BenchCase, type BenchRow, benchRow, type Entry, linesOf, tableOf } from '../../../lib/benchmark/index.js';

const one: BenchCase = {
  shape: { rows: 1000, cols: 2000 },
  kind: 'uniform',
  bits: 2,
  groupSize: 128,
  rank: 0,
  mode: 'fast',
  tokens: 4,
  threads: 2,
  caches: 'cold',
  batchInvariant: false,
};
const entry: Entry = {
  by: 'lutra',
  mode: 'fast',
  work: 500_000,
  matrices: 2100,
  burst: () => [],
  error: () => 1e-5,
  dispose: () => {},
};
/** Reads 1e9 bytes in 20 ms: 50 GB/s. */
const probe = { work: 1e9, burst: () => [] };

const rowOf = (fields: Partial<BenchCase>, milliseconds: number): Promise<BenchRow> =>
  benchRow({ ...one, ...fields }, entry, [[milliseconds, 2 * milliseconds, milliseconds]], probe, [[20]]);

describe('a row', () => {
  it('relates time to bytes, to operations and to the memory read beside it', async () => {
    const row = await rowOf({}, 0.02);
    expect(row).toMatchObject({ shape: '1000x2000', weights: 'W2', caches: 'cold', samples: 3, milliseconds: 0.02 });
    expect(row.gigabytesPerSecond).toBeCloseTo(25, 9);
    expect(row.readGigabytesPerSecond).toBeCloseTo(50, 9);
    expect(row.shareOfReadBandwidth).toBeCloseTo(0.5, 9);
    expect(row.gigaMacsPerSecond).toBeCloseTo((1000 * 2000 * 4) / 0.02 / 1e6, 9);
    expect(row.normalizedMeanSquaredError).toBe(1e-5);
  });

  it('has a cell under every head, and shows a share of the memory only where weights came from it', async () => {
    const { head, cells } = tableOf([await rowOf({}, 0.02), await rowOf({ caches: 'hot' }, 0.02)]);
    for (const row of cells) expect(row).toHaveLength(head.length);
    expect(cells.map((row) => row[head.indexOf('of memory')])).toEqual(['50 %', '-']);
  });

  it('is one line of JSON after that of the machine', async () => {
    const row = await rowOf({}, 0.02);
    const lines = linesOf({ isa: 'avx2' }, [row, row]).split('\n');
    expect(lines.map((line) => line && JSON.parse(line))).toEqual([{ machine: { isa: 'avx2' } }, row, row, '']);
  });
});
