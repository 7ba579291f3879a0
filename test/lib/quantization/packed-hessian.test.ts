import { describe, expect, test } from 'vitest';
import { quantize, type RecipeInput } from '../../../lib/quantization/index.js';
import {
  type QuantizedTensor,
  subBranchTensors,
  Tensor,
  triangleElements,
  trianglePlace,
  triangleRows,
} from '../../../lib/tensor/index.js';
import { gram, normal } from './matrices.js';

const [m, k] = [48, 200];

/** The rows of the upper triangle, one behind the other. */
const packed = (square: Float64Array): Float64Array =>
  Float64Array.from({ length: triangleElements(k) }, (_, index) => {
    const [row, column] = trianglePlace(index, k);
    return square[row * k + column]!;
  });

const partsOf = ({ codes, scales, offsets, subBranch }: QuantizedTensor) =>
  [codes, scales, offsets, ...(subBranch ? subBranchTensors(subBranch) : [])].map((tensor) => tensor?.read());

const grid = { bits: 3, groupSize: 64 };
const recipes: Record<string, RecipeInput> = {
  gptq: { method: 'gptq', ...grid },
  'gptq with a search': { method: 'gptq', ...grid, clipSearch: 'hessian' },
  'gptq with dynamic groups': { method: 'gptq', ...grid, actOrder: false, staticGroups: false },
  rtn: { method: 'rtn', ...grid, clipSearch: 'hessian' },
  leanquant: { method: 'leanquant', ...grid },
  bcq: { method: 'bcq', ...grid, weighting: 'hessian', errorFeedback: true },
  decoupleq: { method: 'decoupleq', ...grid },
  'decoupleq by descent': {
    method: 'decoupleq',
    ...grid,
    rounding: 'gradient',
    iterations: 2,
    steps: 3,
    innerSteps: 1,
  },
  boa: { method: 'boa', ...grid, refineScales: true, rounding: { method: 'aespa', iterations: 5 } },
  fbquant: { method: 'rtn', ...grid, lowRank: { method: 'fbquant', rank: 4, steps: 3 } },
  correction: { method: 'rtn', ...grid, lowRank: { method: 'correction', rank: 4 } },
};

describe('a packed Hessian', () => {
  const hessian = gram(k, 300, 5);
  const weights = normal(m, k, 6, 0.02);

  async function quantizedBy(recipe: RecipeInput, given: Tensor) {
    let report: unknown;
    using h = given;
    using q = await quantize(Tensor.from(weights, [m, k]), recipe, {
      statistics: { hessian: h, rowHessian: undefined, tokens: 300 },
      onReport: (one) => {
        report = one;
      },
    });
    return { bytes: partsOf(q), report };
  }

  test.each(Object.entries(recipes))('gives the bits of the whole one: %s', async (_, recipe) => {
    const whole = await quantizedBy(recipe, Tensor.copyOf(hessian, [k, k]));
    expect(await quantizedBy(recipe, Tensor.copyOf(packed(hessian)))).toEqual(whole);
  });

  test('with row Hessians gives the bits of the whole one', async () => {
    const [heads, d] = [3, 16];
    const rows = new Float64Array(heads * d * d);
    for (let head = 0; head < heads; head++) rows.set(gram(d, 64, 9 + head), head * d * d);
    const bytesWith = async (h: Tensor) => {
      using own = h;
      using rowHessian = Tensor.copyOf(rows, [heads, d, d]);
      const statistics = { hessian: own, rowHessian };
      using q = await quantize(Tensor.from(weights, [m, k]), { method: 'boa', ...grid }, { statistics });
      return partsOf(q);
    };
    expect(await bytesWith(Tensor.copyOf(packed(hessian)))).toEqual(await bytesWith(Tensor.copyOf(hessian, [k, k])));
  });

  test('that is not finite is refused with row and column', async () => {
    const bad = packed(hessian);
    bad[k + 3] = Number.NaN;
    await expect(quantizedBy(recipes.gptq!, Tensor.copyOf(bad))).rejects.toMatchObject({
      code: 'LUTRA_E_NON_FINITE',
      found: 'NaN at index [1, 4]',
    });
  });

  test('of another size is refused', async () => {
    await expect(quantizedBy(recipes.gptq!, Tensor.zeros('f64', [triangleElements(k) - 1]))).rejects.toMatchObject({
      code: 'LUTRA_E_SHAPE',
    });
    await expect(quantizedBy(recipes.gptq!, Tensor.zeros('f64', [triangleElements(k + 1)]))).rejects.toMatchObject({
      code: 'LUTRA_E_SHAPE',
    });
  });
});

test('rows of triangles', () => {
  for (const n of [0, 1, 2, 3, 767, 11008, 28672]) {
    expect(triangleRows({ shape: [triangleElements(n)] })).toBe(n);
    if (n > 1) expect(triangleRows({ shape: [triangleElements(n) - 1] })).toBe(-1);
  }
  expect(triangleRows({ shape: [5, 5] })).toBe(5);
  expect(triangleRows({ shape: [5, 4] })).toBe(-1);
});
