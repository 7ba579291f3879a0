import { describe, expect, it } from 'vitest';
import { type BenchPlan, caseName, expand, modelShapes, parseShape, shapeName } from '../../../lib/benchmark/index.js';

const plan: BenchPlan = {
  shapes: [
    { rows: 64, cols: 96 },
    { rows: 32, cols: 32 },
  ],
  kinds: ['uniform', 'planes'],
  bits: [2, 3],
  groupSizes: [32],
  ranks: [0, 4],
  modes: ['exact', 'fast'],
  tokens: [1, 8],
  threads: [1],
  caches: ['hot', 'cold'],
  batchInvariant: false,
};

describe('shapes', () => {
  it('are two positive sizes', () => {
    expect(parseShape('4096x11008')).toEqual({ rows: 4096, cols: 11008 });
    for (const text of ['4096', '0x5', '5x0', '-1x5', '4x4x4', 'axb', '', ' 4x4']) expect(parseShape(text)).toBeNull();
  });

  it('of models have names that can be read back', () => {
    for (const shapes of Object.values(modelShapes)) {
      expect(shapes.length).toBeGreaterThan(0);
      for (const shape of shapes) expect(parseShape(shapeName(shape))).toEqual(shape);
    }
  });
});

describe('cases', () => {
  const cases = expand(plan);

  it('are all combinations of a plan, each once', () => {
    expect(cases).toHaveLength(2 ** 7);
    expect(new Set(cases.map(caseName)).size).toBe(cases.length);
    expect(caseName(cases[0]!)).toBe('64x96/W2/exact/hot/n1/t1');
    expect(caseName({ ...cases.at(-1)!, batchInvariant: true })).toBe('32x32/BCQ3r4/fast-invariant/cold/n8/t1');
  });

  it('with the same weights follow each other', () => {
    const weights = cases.map(({ shape, kind, bits, rank, caches }) =>
      [shapeName(shape), kind, bits, rank, caches].join(),
    );
    const runs = weights.filter((name, i) => name !== weights[i - 1]);
    expect(runs).toHaveLength(new Set(weights).size);
  });
});
