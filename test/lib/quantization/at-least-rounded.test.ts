import { describe, expect, test } from 'vitest';
import { addon } from '../../../lib/native/index.js';
import { atLeastRounded } from '../../../lib/quantization/at-least-rounded.js';
import { refuseNonFiniteValues } from '../../../lib/quantization/finite.js';
import { quantize } from '../../../lib/quantization/index.js';
import type { Solution, Storage, Values } from '../../../lib/quantization/method.js';
import { fitGrid, roundToValues, valuesOf } from '../../../lib/quantization/passes.js';
import { Tensor } from '../../../lib/tensor/index.js';
import { memoryAtRest } from '../../memory-at-rest.js';
import { gram, normal, quantized } from './matrices.js';

const [m, k] = [24, 64];
const call = { where: 'layer' };
const grid = { bits: 3, groupSize: 32, symmetric: false };
const groups = k / grid.groupSize;

/** Constant numbers for every group. */
function constantValues(storage: Storage, scale: number, offset: number): Values {
  const filled = (shape: number[], value: number) => {
    const tensor = Tensor.zeros('f32', shape);
    tensor.fill(value);
    return tensor;
  };
  if (storage === 'zeroCode')
    return { storage, scales: filled([m, groups], scale), zeros: filled([m, groups], Math.round(-offset / scale)) };
  if (storage === 'realOffset')
    return { storage, scales: filled([m, groups], scale), offsets: filled([m, groups], offset) };
  const alphas = Tensor.copyOf(
    Float32Array.from({ length: m * groups * grid.bits }, (_, i) => scale * 2 ** (i % grid.bits)),
    [m, groups, grid.bits],
  );
  return { storage, alphas, offsets: filled([m, groups], offset) };
}

async function keptOf(values: Values, codes: Tensor, learns: boolean, w: Tensor, hessian: Tensor) {
  const solution: Solution = { codes, values, damping: 0.01, deadColumns: 0, warnings: [] };
  const measured = await atLeastRounded(w, solution, { grid, scaleDtype: 'f16', learns }, { hessian }, call);
  const kinds = measured.solution.warnings.map(({ kind }) => kind);
  const { storage } = measured.solution.values;
  const sameValues = measured.solution.values === values;
  for (const tensor of [measured.solution.codes, ...valuesOf(measured.solution.values)]) tensor.dispose();
  return { ...measured, kinds, storage, sameValues };
}

describe.each(['zeroCode', 'realOffset', 'planes'] as const)('a solution stored with %s', (storage) => {
  test('whose codes are bad takes those of round to nearest, whose scales are bad its grid, too', async () => {
    const memory = await memoryAtRest();
    {
      using w = Tensor.copyOf(normal(m, k, 5), [m, k]);
      using hessian = Tensor.copyOf(gram(k, 200, 6), [k, k]);
      const good = () => constantValues(storage, 0.75, -2.625);
      const zeros = () => Tensor.zeros('u8', [m, k]);

      const badCodes = await keptOf(good(), zeros(), true, w, hessian);
      expect(badCodes).toMatchObject({ kinds: ['keptRoundToNearest'], storage });
      expect(badCodes.relativeError).toBeLessThan(0.2);
      expect(badCodes.relativeError).toBeLessThanOrEqual(badCodes.rtnError);

      const coarse = constantValues(storage, 64, -256);
      const badScales = await keptOf(coarse, await roundToValues(w, coarse, grid, call), true, w, hessian);
      expect(badScales).toMatchObject({ kinds: ['keptRoundToNearest'], storage, sameValues: false });
      expect(badScales.relativeError).toBe(badScales.rtnError);
      expect(badScales.relativeError).toBeLessThan(0.2);

      // What did not ask for the Hessian is not judged by another grid.
      const unasked = constantValues(storage, 64, -256);
      const blind = await keptOf(unasked, await roundToValues(w, unasked, grid, call), false, w, hessian);
      expect(blind).toMatchObject({ kinds: [], sameValues: true });
    }
    expect(addon().nativeMemory()).toBe(memory);
  });
});

test('round to nearest itself stays what it is, without a word', async () => {
  using w = Tensor.copyOf(normal(m, k, 8), [m, k]);
  using hessian = Tensor.copyOf(gram(k, 200, 9), [k, k]);
  const values = await fitGrid(w, grid, 'f16', 'none', call);
  const kept = await keptOf(values, await roundToValues(w, values, grid, call), true, w, hessian);
  expect(kept).toMatchObject({ kinds: [], sameValues: true, rtnError: kept.relativeError });
});

test('no method that learns from the Hessian ends above round to nearest', async () => {
  const w = normal(m, k, 20);
  const h = gram(k, 300, 21);
  using hessian = Tensor.copyOf(h, [k, k]);
  using weights = Tensor.copyOf(w, [m, k]);
  const values = await fitGrid(weights, grid, 'f16', 'none', call);
  const plain = await keptOf(values, await roundToValues(weights, values, grid, call), true, weights, hessian);
  const shape = { bits: 3, groupSize: 32 };
  for (const method of [
    { method: 'gptq' },
    { method: 'gptq', actOrder: true },
    { method: 'leanquant', exponent: 16 },
    { method: 'bcq', weighting: 'diagonal' },
    { method: 'decoupleq' },
    { method: 'boa' },
  ]) {
    const { report } = await quantized(w, k, { ...method, ...shape }, h);
    expect(report.relativeError, method.method).toBeLessThanOrEqual(plain.relativeError);
  }
});

test('a NaN in a row Hessian is told with layer, head and row', async () => {
  const d = 8;
  const rows = new Float64Array((m / d) * d * d);
  for (let i = 0; i < rows.length; i++) rows[i] = (i % (d * d)) % (d + 1) === 0 ? 1 : 0;
  rows[2 * d * d + 3 * d + 5] = Number.NaN;
  const statistics = { hessian: Tensor.from(gram(k, 200, 30), [k, k]), rowHessian: Tensor.from(rows, [m / d, d, d]) };
  const running = quantize(
    Tensor.from(normal(m, k, 31), [m, k]),
    { method: 'boa', bits: 3, groupSize: 32 },
    { statistics, where: 'model.layers.0.self_attn.q_proj.weight' },
  );
  await expect(running).rejects.toMatchObject({
    code: 'LUTRA_E_NON_FINITE',
    where: 'model.layers.0.self_attn.q_proj.weight, row Hessian, head 2',
    found: 'NaN at index [3, 5]',
  });
});

test('numbers of a group that are none are told with layer, row and group', async () => {
  const values = constantValues('planes', 0.5, -1);
  const offsets = values.storage === 'planes' ? values.offsets : null;
  offsets!.write(Float32Array.of(Number.POSITIVE_INFINITY), 7 * groups + 1);
  await expect(refuseNonFiniteValues(values, call)).rejects.toMatchObject({
    code: 'LUTRA_E_NON_FINITE',
    where: 'layer',
    message: expect.stringContaining('the offsets hold a NaN or infinity'),
    found: 'Infinity at index [7, 1]',
  });
  for (const tensor of valuesOf(values)) tensor.dispose();
});
