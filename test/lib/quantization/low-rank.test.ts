import { describe, expect, test } from 'vitest';
import { z } from 'zod';
import { nativeMemory } from '../../../lib/native/index.js';
import { dequantize } from '../../../lib/ops/index.js';
import {
  type LayerReport,
  type LowRank,
  lowRanks,
  quantize,
  type RecipeInput,
} from '../../../lib/quantization/index.js';
import { Pair, roundPair, storePair, widenPair } from '../../../lib/quantization/pair.js';
import { QuantizedTensor, type SubBranch, Tensor } from '../../../lib/tensor/index.js';
import { memoryAtRest } from '../../memory-at-rest.js';
import { energy, gram, normal, quantized } from './matrices.js';

const [m, k] = [24, 80];
const w = normal(m, k, 1, 0.1);
const h = gram(k, 300, 2);
const methods = ['correction', 'loftq', 'alternation', 'fbquant'];
const grid = { bits: 3, groupSize: 32 };

interface Whole {
  /** What everything stands for, f32 [m, k]. */
  weights: Float32Array;
  /** What the codes alone stand for. */
  coded: Float32Array;
  subBranch: SubBranch;
  scales: Tensor;
  report: LayerReport;
  bytes: number;
}

/** Quantizes with a pair and reads everything back; tensors are left to the garbage collector. */
async function whole(
  recipe: Record<string, unknown>,
  {
    data = w,
    rows = m,
    hessian = h,
    threads,
  }: { data?: Float32Array; rows?: number; hessian?: Float64Array; threads?: number } = {},
): Promise<Whole> {
  const cols = data.length / rows;
  let report: LayerReport | undefined;
  const q = await quantize(Tensor.from(data, [rows, cols]), { method: 'rtn', ...grid, ...recipe } as RecipeInput, {
    statistics: { hessian: Tensor.copyOf(hessian, [cols, cols]) },
    threads,
    onReport: (r) => {
      report = r;
    },
  });
  const plain = new QuantizedTensor(q.layout, q.codes, q.scales, q.offsets);
  const [weights, coded] = [dequantize(q).read(), dequantize(plain).read()] as [Float32Array, Float32Array];
  return { weights, coded, subBranch: q.subBranch!, scales: q.scales, report: report!, bytes: q.byteLength };
}

const minus = (a: Float32Array, b: Float32Array): Float32Array => a.map((v, i) => v - b[i]!);
const errorOf = (x: Float32Array, hessian?: Float64Array): number =>
  energy(minus(x, w), k, hessian) / energy(w, k, hessian);
const bytesOf = ({ a, b, aScales, bScales }: SubBranch): Uint8Array[] =>
  [a, b, aScales, bScales].flatMap((t) => (t ? [new Uint8Array(t.read().slice().buffer)] : []));

describe.each(methods)('%s', (method) => {
  test('takes from the error that the solver leaves, and reports both', async () => {
    for (const storage of ['f16', 'bf16', 'i8']) {
      const { weights, report, subBranch } = await whole({ lowRank: { method, rank: 5, storage } });
      const metric = method === 'loftq' ? undefined : h;
      const plain = await quantized(w, k, { method: 'rtn', ...grid });
      expect(subBranch.a.dtype).toBe(storage);
      expect(report.lowRank).toMatchObject({ rank: 5, dtype: storage });
      expect(report.lowRank!.errorWithout).toBeCloseTo(errorOf(plain.weights, metric), 6);
      expect(report.relativeError / errorOf(weights, metric)).toBeCloseTo(1, 3);
      expect(report.relativeError).toBeLessThan(0.9 * report.lowRank!.errorWithout);
      expect(report.lowRank!.best).toBeLessThanOrEqual(report.lowRank!.steps);
      expect(report.warnings).toEqual([]);
    }
  });

  test('stores what it says: bits of the pair are counted', async () => {
    const { bytes, subBranch } = await whole({ lowRank: { method, rank: 3, storage: 'i8' } });
    using plain = await quantize(Tensor.from(w, [m, k]), { method: 'rtn', ...grid });
    expect(bytes).toBe(plain.byteLength + 3 * (m + k) + 4 * (3 + m));
    expect(subBranch.b.shape).toEqual([m, 3]);
  });

  test('gives the same bytes on any number of lanes', async () => {
    const [one, three] = [1, 3].map((threads) => whole({ lowRank: { method, rank: 4 } }, { threads }));
    const [a, b] = [await one!, await three!];
    expect(a.coded).toEqual(b.coded);
    expect(bytesOf(a.subBranch)).toEqual(bytesOf(b.subBranch));
  });

  test('takes a single row, a single column, and zeros', async () => {
    const row = await whole(
      { lowRank: { method, rank: 1 } },
      { data: normal(1, 16, 3), rows: 1, hessian: gram(16, 64, 1) },
    );
    const column = await whole(
      { lowRank: { method, rank: 1 } },
      { data: normal(16, 1, 3), rows: 16, hessian: gram(1, 64, 1) },
    );
    // Rank one is everything that there is.
    for (const { report } of [row, column]) expect(report.relativeError).toBeLessThan(1e-5);
    const zeros = await whole({ lowRank: { method, rank: 2 } }, { data: new Float32Array(m * k) });
    expect(new Set(zeros.weights)).toEqual(new Set([0]));
    const silent = await whole({ lowRank: { method, rank: 2 } }, { hessian: new Float64Array(k * k) });
    if (method !== 'loftq') expect(silent.report.warnings.map(({ kind }) => kind)).toContain('keptRoundToNearest');
  });

  test('refuses what it cannot do', async () => {
    const run = (lowRank: unknown, solver: object = { method: 'rtn' }) =>
      whole({ ...solver, lowRank: { method, ...(lowRank as object) } });
    const where = (key: string) => ({ code: 'LUTRA_E_OPTION', where: `recipe.lowRank.${key}` });
    await expect(run({})).rejects.toMatchObject(where('rank'));
    await expect(run({ rank: 0 })).rejects.toMatchObject(where('rank'));
    await expect(run({ rank: 2.5 })).rejects.toMatchObject(where('rank'));
    await expect(run({ rank: 4, storage: 'f32' })).rejects.toMatchObject(where('storage'));
    await expect(run({ rank: 4, ranks: 4 })).rejects.toMatchObject(where('ranks'));
    await expect(run({ rank: m + 1 })).rejects.toMatchObject({ code: 'LUTRA_E_SHAPE', found: m + 1 });
    await expect(run({ rank: 4 }, { method: 'bcq' })).rejects.toMatchObject(where('method'));
    const heads = { method: 'boa', headHessians: true };
    await expect(run({ rank: 4 }, heads)).rejects.toMatchObject(where('method'));
    const large = w.map((v) => v * 2 ** 40);
    await expect(whole({ lowRank: { method, rank: 2 } }, { data: large })).rejects.toMatchObject({
      code: 'LUTRA_E_OPTION',
    });
    if (method === 'loftq') return;
    const blind = quantize(Tensor.from(w, [m, k]), { method: 'rtn', ...grid, lowRank: { method, rank: 2 } });
    await expect(blind).rejects.toMatchObject({ code: 'LUTRA_E_OPTION' });
  });
});

test.each(['f16', 'bf16', 'i8'] as const)('a stored pair of %s stands for the rounded one', async (storage) => {
  const call = { where: 'pair' };
  using pair = Pair.zeros([m, k], 3);
  pair.b.write(normal(m, 3, 5));
  pair.a.write(normal(3, k, 6));
  using rounded = await roundPair(pair, storage, call);
  const stored = await storePair(pair, storage, call);
  using wide = await widenPair(stored, call);
  expect(wide.b.read()).toEqual(rounded.b.read());
  expect(wide.a.read()).toEqual(rounded.a.read());
  expect(wide.a.read()).not.toEqual(pair.a.read());
});

test('the whole rank leaves nothing but the rounding of the pair', async () => {
  for (const method of ['correction', 'loftq']) {
    const { report } = await whole({ lowRank: { method, rank: m, storage: 'f16' } });
    expect(report.relativeError).toBeLessThan(1e-6 * report.lowRank!.errorWithout);
  }
});

test('the correction keeps the solver’s codes, whichever it is', async () => {
  for (const method of ['rtn', 'gptq', 'hqq', 'leanquant']) {
    const { coded, report } = await whole({ method, lowRank: { method: 'correction', rank: 4 } });
    const plain = await quantized(w, k, { method, ...grid }, h);
    expect(coded).toEqual(plain.weights);
    expect(report.lowRank).toMatchObject({ steps: 1, best: 1 });
  }
});

test('a fit in the metric of the inputs is the better one there', async () => {
  const weighted = await whole({ lowRank: { method: 'correction', rank: 4 } });
  const unweighted = await whole({ lowRank: { method: 'loftq', rank: 4, rounds: 1 } });
  expect(weighted.coded).toEqual(unweighted.coded);
  expect(errorOf(weighted.weights, h)).toBeLessThan(0.9 * errorOf(unweighted.weights, h));
  expect(errorOf(unweighted.weights)).toBeLessThan(errorOf(weighted.weights));
});

test('more rounds of alternation never cost, and it works with any uniform solver', async () => {
  for (const method of ['rtn', 'gptq']) {
    let before = Number.POSITIVE_INFINITY;
    for (const rounds of [1, 3, 9]) {
      const { report } = await whole({ method, lowRank: { method: 'alternation', rank: 4, rounds } });
      expect(report.relativeError).toBeLessThanOrEqual(before);
      before = report.relativeError;
    }
  }
});

describe('fbquant', () => {
  test.each([
    [2, 16, false],
    [3, 32, true],
    [4, -1, false],
  ])(
    'is within half a step of the grid everywhere: %s bits, groups of %s, symmetric %s',
    async (bits, groupSize, symmetric) => {
      for (const storage of ['f16', 'bf16', 'i8']) {
        const lowRank = { method: 'fbquant', rank: 6, storage, steps: 40 };
        const { weights, coded, subBranch } = await whole({ bits, groupSize, symmetric, lowRank });
        // Half a step of a group is half the least distance of two values that its codes have, or more.
        const span = groupSize === -1 ? k : groupSize;
        for (let row = 0; row < m; row++)
          for (let first = 0; first < k; first += span) {
            const range = [row * k + first, row * k + Math.min(k, first + span)] as const;
            const group = coded.slice(...range);
            const levels = [...new Set(group)].sort((a, b) => a - b);
            const step = Math.min(...levels.slice(1).map((v, i) => v - levels[i]!));
            const left = minus(weights, w).slice(...range);
            for (const error of left)
              expect(Math.abs(error)).toBeLessThanOrEqual((step / 2) * (1 + 2 ** -10 * (2 ** bits - 1)));
          }
        expect(subBranch.a.read().some((v) => v !== 0)).toBe(true);
      }
    },
  );

  test('is below round to nearest, the correction and its start', async () => {
    // Many directions of falling strength, more than the pair has.
    const flat = h.map((v, i) => v + (i % (k + 1) === 0 ? 200 + 40 * (i % 7) : 0));
    const error = async (lowRank: object) =>
      (await whole({ lowRank: { rank: 8, ...lowRank } }, { hessian: flat })).report;
    const corrected = await error({ method: 'correction' });
    const alternated = await error({ method: 'alternation', rounds: 10 });
    const descended = await error({ method: 'fbquant' });
    expect(descended.relativeError).toBeLessThan(corrected.relativeError);
    expect(descended.relativeError).toBeLessThan(alternated.relativeError);
    expect(descended.lowRank!.steps).toBeGreaterThan(100);
    const start = await error({ method: 'fbquant', steps: 0 });
    expect(start.relativeError).toBe(alternated.relativeError);
    const random = await error({ method: 'fbquant', start: 'random' });
    expect(random.relativeError).toBeLessThan(0.9 * random.lowRank!.errorWithout);
  });

  test('without a step from zeros is round to nearest with a pair of zeros', async () => {
    const { coded, weights, report } = await whole({
      lowRank: { method: 'fbquant', rank: 2, start: 'random', steps: 0 },
    });
    const plain = await quantized(w, k, { method: 'rtn', ...grid });
    expect(coded).toEqual(plain.weights);
    expect(weights).toEqual(coded);
    expect(report.relativeError).toBe(report.lowRank!.errorWithout);
  });

  test('has no quantizer but round to nearest over the whole range', async () => {
    const lowRank = { method: 'fbquant', rank: 2 };
    for (const solver of [{ method: 'gptq' }, { method: 'hqq' }, { method: 'rtn', clipSearch: true }])
      await expect(whole({ ...solver, lowRank })).rejects.toMatchObject({
        code: 'LUTRA_E_OPTION',
        where: 'recipe.lowRank.method',
      });
  });
});

test('a pair that costs is dropped, on record, and its memory given back', async () => {
  const clumsy: LowRank<object> = {
    name: 'clumsy',
    options: z.strictObject({}),
    needs: () => ['hessian'],
    stored: () => ({ rank: 2, dtype: 'bf16' }),
    checkSolver() {},
    async fit({ w: matrix, solve }) {
      const pair = Pair.zeros(matrix.shape, 2);
      pair.b.fill(1);
      pair.a.fill(1);
      return { solution: await solve(matrix), pair, steps: 1, best: 1 };
    },
  };
  const registry = lowRanks as LowRank[];
  registry.push(clumsy);
  try {
    const { report, weights, coded, subBranch } = await whole({ lowRank: { method: 'clumsy' } });
    expect(report.warnings.map(({ kind }) => kind)).toEqual(['pairDropped']);
    expect(report.relativeError).toBe(report.lowRank!.errorWithout);
    const plain = await quantized(w, k, { method: 'rtn', ...grid });
    expect(coded).toEqual(plain.weights);
    expect(weights).toEqual(coded);
    expect([subBranch.b.dtype, ...new Set(subBranch.b.read())]).toEqual(['bf16', 0]);

    using hessian = Tensor.copyOf(h, [k, k]);
    using matrix = Tensor.copyOf(w, [m, k]);
    const before = await memoryAtRest();
    const recipe = { method: 'rtn', ...grid, lowRank: { method: 'clumsy' } };
    (await quantize(matrix, recipe, { statistics: { hessian } })).dispose();
    expect(nativeMemory()).toBe(before);
  } finally {
    registry.splice(registry.indexOf(clumsy), 1);
  }
});
