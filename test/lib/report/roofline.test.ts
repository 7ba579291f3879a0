import { describe, expect, it } from 'vitest';
import type { BenchRow } from '../../../lib/benchmark/index.js';
import { rooflineSvg } from '../../../lib/report/index.js';
import { checkWellFormed } from './well-formed.js';

const rowOf = (fields: Partial<BenchRow>): BenchRow => ({
  by: 'lutra',
  mode: 'fast',
  milliseconds: 0.02,
  p10: 0.02,
  p90: 0.04,
  samples: 3,
  normalizedMeanSquaredError: 1e-5,
  shape: '1000x2000',
  weights: 'W2',
  groupSize: 128,
  tokens: 4,
  threads: 2,
  caches: 'cold',
  matrices: 7,
  rotatedBytes: 1.1e9,
  gigabytesPerSecond: 25,
  readGigabytesPerSecond: 50,
  shareOfReadBandwidth: 0.5,
  gigaMacsPerSecond: 400,
  ...fields,
});

describe('the roofline plot', () => {
  const machine = { processor: 'A <fast> & "small" one', isa: 'avx2', date: '2026-01-01' };
  const rows = [rowOf({}), rowOf({ threads: 1, tokens: 128 }), rowOf({ threads: 1, weights: 'BCQ3' })];

  it('is well-formed, with every row, every panel and the texts escaped', () => {
    const svg = rooflineSvg(machine, rows, { 1: 120, 2: 240 });
    checkWellFormed(svg);
    expect(svg.match(/<title>lutra fast [BW]/g)?.length).toBe(3);
    expect(svg).toContain('A &lt;fast&gt; &amp; &quot;small&quot; one');
    expect(svg).toContain('>1 thread, memory reads 50.0 GB/s, fp32 peak 120e9');
    expect(svg).toContain('>2 threads, memory reads 50.0 GB/s, fp32 peak 240e9');
    expect(svg).not.toMatch(/NaN|Infinity|undefined/);
  });

  it('needs no peak, and no row', () => {
    const failed = rowOf({ milliseconds: Number.NaN, gigaMacsPerSecond: Number.NaN, failure: 'it died' });
    for (const some of [[...rows, failed], rows, []]) {
      const svg = rooflineSvg(machine, some);
      checkWellFormed(svg);
      expect(svg).not.toMatch(/NaN|Infinity|undefined|fp32 peak/);
    }
  });

  it('puts faster above slower', () => {
    const heights = (svg: string) => [
      ...svg.matchAll(/<path[^>]*translate\(([\d.]+) ([\d.]+)\)[^>]*><title>lutra fast/g),
    ];
    const [fast, slow] = heights(
      rooflineSvg(machine, [rowOf({}), rowOf({ gigaMacsPerSecond: 40, gigabytesPerSecond: 2.5 })]),
    );
    expect(Number(fast?.[2])).toBeLessThan(Number(slow?.[2]));
    expect(Number(fast?.[1])).toBeCloseTo(Number(slow?.[1]), 1);
  });
});
