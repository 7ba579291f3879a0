import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { Sampler, type SamplingOptions } from '../../../lib/inference/index.js';

const logitsArbitrary = fc
  .array(fc.oneof(fc.integer({ min: -8, max: 8 }), fc.double({ min: -8, max: 8, noNaN: true })), {
    minLength: 1,
    maxLength: 200,
  })
  .map((values) => Float32Array.from(values));

/** Thousandths, evenly spread: arbitrary doubles are nearly all tiny. */
const share = (min: number, max: number) => fc.integer({ min, max }).map((n) => n / 1000);

/** Softmax of the whole vocabulary, most likely first, lower ids first among equals. */
function ranking(logits: Float32Array, temperature: number): { id: number; p: number }[] {
  const weights = Array.from(logits, (logit) => Math.exp(logit / temperature));
  const total = weights.reduce((sum, weight) => sum + weight, 0);
  return weights.map((weight, id) => ({ id, p: weight / total })).sort((a, b) => b.p - a.p || a.id - b.id);
}

const candidates = (logits: Float32Array, options: SamplingOptions, seen: number[] = []) =>
  new Sampler({ temperature: 1, ...options }).candidates(logits, seen);

describe('candidates', () => {
  it('without filters are the softmax at the temperature', () => {
    fc.assert(
      fc.property(logitsArbitrary, share(200, 4000), (logits, temperature) => {
        const { ids, probabilities } = candidates(logits, { temperature });
        expect(ids).toEqual([...logits.keys()]);
        for (const { id, p } of ranking(logits, temperature)) expect(probabilities[id]!).toBeCloseTo(p, 10);
      }),
    );
  });

  it('of top-k are the k most likely, renormalised', () => {
    fc.assert(
      fc.property(logitsArbitrary, fc.integer({ min: 1, max: 250 }), (logits, topK) => {
        const { ids, probabilities } = candidates(logits, { topK });
        expect(ids).toEqual([...logits.keys()].sort((a, b) => logits[b]! - logits[a]! || a - b).slice(0, topK));
        expect(probabilities.reduce((sum, p) => sum + p, 0)).toBeCloseTo(1, 12);
      }),
    );
  });

  it('of top-p are the fewest that reach the mass', () => {
    fc.assert(
      fc.property(logitsArbitrary, share(10, 999), (logits, topP) => {
        const { ids } = candidates(logits, { topP });
        const probability = new Map(ranking(logits, 1).map(({ id, p }) => [id, p]));
        const mass = ids.reduce((sum, id) => sum + probability.get(id)!, 0);
        const last = probability.get(ids.at(-1)!)!;
        expect(mass).toBeGreaterThan(topP - 1e-9);
        expect(mass - last).toBeLessThan(topP + 1e-9);
        for (const [id, p] of probability) if (p > last * (1 + 1e-9)) expect(ids).toContain(id);
      }),
    );
  });

  it('of top-p after top-k reach the mass of what top-k left', () => {
    const logits = Float32Array.from([4, 3, 2, 1].map((weight) => Math.log(weight)));
    expect(candidates(logits, { topK: 2, topP: 0.57 }).ids).toEqual([0]);
    expect(candidates(logits, { topK: 2, topP: 0.58 }).ids).toEqual([0, 1]);
    expect(candidates(logits, { topP: 0.58 }).ids).toEqual([0, 1]);
    expect(candidates(logits, { topP: 0.71 }).ids).toEqual([0, 1, 2]);
  });

  it('of min-p are at least that share as likely as the first', () => {
    fc.assert(
      fc.property(logitsArbitrary, share(0, 1000), (logits, minP) => {
        const ids = new Set(candidates(logits, { minP }).ids);
        const largest = Math.max(...logits);
        logits.forEach((logit, id) => {
          const share = Math.exp(logit - largest);
          if (Math.abs(share - minP) > 1e-12) expect(ids.has(id)).toBe(share > minP);
        });
      }),
    );
  });

  it('never include a token of probability 0', () => {
    const logits = Float32Array.of(Number.NEGATIVE_INFINITY, 0, -1000, 0);
    expect(candidates(logits, {}).ids).toEqual([1, 3]);
  });

  it('after a repetition penalty are those of the penalised logits', () => {
    const seen = candidates(Float32Array.of(2, -2, 1, -1), { repetitionPenalty: 2 }, [0, 1, 0, 99]);
    expect(seen).toEqual(candidates(Float32Array.of(1, -4, 1, -1), {}));
  });
});

describe('next', () => {
  const logits = Float32Array.from({ length: 50 }, (_, id) => Math.sin(id * 12.9898) * 3);
  const draw = (options: SamplingOptions, count = 200) => {
    const sampler = new Sampler(options);
    return Array.from({ length: count }, () => sampler.next(logits));
  };

  it('at temperature 0, and nearly so, is the most likely token, the lowest among equals', () => {
    const best = logits.indexOf(Math.max(...logits));
    expect(new Set(draw({}))).toEqual(new Set([best]));
    expect(new Set(draw({ temperature: 1e-4, seed: 3 }))).toEqual(new Set([best]));
    expect(new Sampler().next(Float32Array.of(1, 2, 2))).toBe(1);
  });

  it('depends on the seed, and on nothing else', () => {
    expect(draw({ temperature: 1, seed: 11 })).toEqual(draw({ temperature: 1, seed: 11 }));
    expect(draw({ temperature: 1, seed: 11 })).not.toEqual(draw({ temperature: 1, seed: 12 }));
    expect(draw({ temperature: 1 })).not.toEqual(draw({ temperature: 1 }));
  });

  it('draws tokens as often as they are probable', () => {
    const count = 40_000;
    const { ids, probabilities } = new Sampler({ temperature: 1, topK: 12 }).candidates(logits);
    const drawn = draw({ temperature: 1, topK: 12, seed: 5 }, count);
    const observed = ids.map((id) => drawn.filter((other) => other === id).length);
    expect(observed.reduce((sum, n) => sum + n, 0)).toBe(count);
    const chiSquare = ids.reduce(
      (sum, _, i) => sum + (observed[i]! - count * probabilities[i]!) ** 2 / (count * probabilities[i]!),
      0,
    );
    // 11 degrees of freedom: 31.3 is exceeded once in a thousand seeds.
    expect(chiSquare).toBeLessThan(31.3);
  });

  it.each([
    [[1, Number.NaN, 0]],
    [[Number.POSITIVE_INFINITY, 0]],
    [[Number.NEGATIVE_INFINITY, Number.NEGATIVE_INFINITY]],
  ])('refuses logits that are not numbers: %s', (values) => {
    for (const temperature of [0, 1])
      expect(() => new Sampler({ temperature }).next(Float32Array.from(values))).toThrow(
        expect.objectContaining({ code: 'LUTRA_E_NON_FINITE' }),
      );
  });

  it.each([
    ['temperature', { temperature: -1 }],
    ['temperature', { temperature: Number.NaN }],
    ['topK', { topK: 1.5 }],
    ['topP', { topP: 0 }],
    ['topP', { topP: 1.1 }],
    ['minP', { minP: 2 }],
    ['repetitionPenalty', { repetitionPenalty: 0 }],
    ['seed', { seed: -1 }],
    ['seed', { seed: 2 ** 53 }],
  ])('refuses an absurd %s: %j', (where, options) => {
    expect(() => new Sampler(options)).toThrow(expect.objectContaining({ code: 'LUTRA_E_OPTION', where }));
  });
});
