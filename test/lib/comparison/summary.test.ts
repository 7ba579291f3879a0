import { describe, expect, it } from 'vitest';
import { estimate, planRuns } from '../../../lib/comparison/index.js';

const sweep = { bits: [2, 3], groupSizes: [32, 64], seeds: [0, 1] };
const labels = (recipe: unknown) =>
  planRuns({ ...sweep, recipes: [{ name: 'one', recipe }] }).map(({ label, seed }) => `${label}/${seed}`);

describe('a sweep', () => {
  it('runs what a recipe leaves open, in the short and in the full form', () => {
    expect(labels({ method: 'rtn' })).toEqual(['one W2g32/null', 'one W2g64/null', 'one W3g32/null', 'one W3g64/null']);
    expect(labels({ solver: { method: 'rtn' }, grid: { bits: 4 } })).toEqual(['one W4g32/null', 'one W4g64/null']);
    expect(labels({ method: 'gptq', bits: 2, groupSize: -1 })).toEqual(['one W2g-1/0', 'one W2g-1/1']);
  });

  it('makes a run that has failed of what is no recipe', () => {
    for (const recipe of [null, [], { method: 'gtpq', bits: 2, groupSize: 32 }, { method: 'rtn', grid: {} }]) {
      const runs = planRuns({ ...sweep, bits: [2], groupSizes: [32], recipes: [{ name: 'bad', recipe }] });
      expect(runs).toHaveLength(1);
      expect(runs[0]).toMatchObject({ recipe: null, seed: null });
      expect(runs[0]?.error?.code).toMatch(/^LUTRA_E_(OPTION|METHOD)$/);
    }
  });

  it('refuses nothing to run, and one run twice', () => {
    const recipes = [{ name: 'a', recipe: { method: 'rtn' } }];
    const refused = expect.objectContaining({ code: 'LUTRA_E_OPTION' });
    for (const empty of ['recipes', 'bits', 'groupSizes', 'seeds'])
      expect(() => planRuns({ ...sweep, recipes, [empty]: [] })).toThrow(refused);
    for (const twice of [{ recipes: [...recipes, ...recipes] }, { bits: [2, 2] }])
      expect(() => planRuns({ ...sweep, recipes, ...twice })).toThrow(refused);
  });
});

describe('an estimate', () => {
  it('of one run has its standard error over documents; of several, that and the spread over seeds', () => {
    expect(estimate([[3, 0.4]])).toEqual({ mean: 3, standardError: 0.4 });
    expect(estimate([[3, null]])).toEqual({ mean: 3, standardError: null });
    // Three seeds of variance 1: 1/3 of their mean.
    const seeds = [1, 2, 3].map((value) => [value, null] as const);
    expect(estimate(seeds).mean).toBe(2);
    expect(estimate(seeds).standardError).toBeCloseTo(Math.sqrt(1 / 3), 12);
    const both = [1, 3].map((value) => [value, 0.3] as const);
    expect(estimate(both).standardError).toBeCloseTo(Math.sqrt(0.09 + 1), 12);
  });
});
