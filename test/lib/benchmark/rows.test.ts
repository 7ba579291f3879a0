import { describe, expect, it } from 'vitest';
import {
  type BenchCase,
  type BenchRow,
  benchRow,
  type Entry,
  linesOf,
  rooflineSvg,
  tableOf,
} from '../../../lib/benchmark/index.js';

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
  matrices: 7,
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

describe('the roofline plot', () => {
  const machine = { processor: 'A <fast> & "small" one', isa: 'avx2', date: '2026-01-01' };
  const rows = Promise.all([
    rowOf({}, 0.02),
    rowOf({ threads: 1, tokens: 128 }, 3),
    rowOf({ threads: 1, kind: 'planes', bits: 3 }, 0.05),
  ]);

  it('is well-formed, with every row, every panel and the texts escaped', async () => {
    const svg = rooflineSvg(machine, await rows, { 1: 120, 2: 240 });
    checkWellFormed(svg);
    expect(svg.match(/<title>lutra fast [BW]/g)?.length).toBe(3);
    expect(svg).toContain('A &lt;fast&gt; &amp; &quot;small&quot; one');
    expect(svg).toContain('>1 thread, memory reads 50.0 GB/s, fp32 peak 120e9');
    expect(svg).toContain('>2 threads, memory reads 50.0 GB/s, fp32 peak 240e9');
    expect(svg).not.toMatch(/NaN|Infinity|undefined/);
  });

  it('needs no peak, and no row', async () => {
    for (const some of [await rows, []]) {
      const svg = rooflineSvg(machine, some);
      checkWellFormed(svg);
      expect(svg).not.toMatch(/NaN|Infinity|undefined|fp32 peak/);
    }
  });

  it('puts faster above slower', async () => {
    const heights = (svg: string) => [
      ...svg.matchAll(/<path[^>]*translate\(([\d.]+) ([\d.]+)\)[^>]*><title>lutra fast/g),
    ];
    const [fast, slow] = heights(rooflineSvg(machine, [await rowOf({}, 0.02), await rowOf({}, 0.2)]));
    expect(Number(fast?.[2])).toBeLessThan(Number(slow?.[2]));
    expect(Number(fast?.[1])).toBeCloseTo(Number(slow?.[1]), 1);
  });
});

/** Every tag is closed by its own, attributes are quoted and no sign stands bare. */
function checkWellFormed(xml: string): void {
  const open: string[] = [];
  const rest = xml.replace(/<(\/?)([a-z]+)((?: [a-zA-Z0-9-]+="[^"<&]*(?:&[a-z]+;[^"<&]*)*")*)(\/?)>/g, (...parts) => {
    const [, closes, name, , empty] = parts as string[];
    if (closes) expect(open.pop()).toBe(name);
    else if (!empty) open.push(name ?? '');
    return '';
  });
  expect(open).toEqual([]);
  expect(rest.replace(/&(amp|lt|gt|quot);/g, '')).not.toMatch(/[<>&]/);
}
