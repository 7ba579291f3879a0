import { expect, test } from 'vitest';
import { energy, gram, normal, quantized } from './matrices.js';

const [m, k] = [18, 96];
const recipe = (options: Record<string, unknown> = {}) => ({ method: 'leanquant', bits: 2, groupSize: 32, ...options });

test('its grids make gptq’s error smaller, over seeds', async () => {
  for (const bits of [2, 3]) {
    let [plain, lean] = [0, 0];
    for (let seed = 0; seed < 8; seed++) {
      const w = normal(m, k, 10 + seed);
      const h = gram(k, 300, 100 * seed);
      const { weights, report } = await quantized(w, k, recipe({ bits }), h);
      const moved = weights.map((v, i) => v - w[i]!);
      expect(Math.abs(report.relativeError / (energy(moved, k, h) / energy(w, k, h)) - 1)).toBeLessThan(1e-3);
      expect(report.relativeError).toBeLessThan(report.rtnError);
      expect(report.damping).toBe(0.1);
      lean += report.relativeError;
      const gptq = await quantized(w, k, { method: 'gptq', bits, groupSize: 32, damping: 0.1 }, h);
      plain += gptq.report.relativeError;
    }
    expect(lean).toBeLessThan(0.95 * plain);
  }
});

test('salient columns come out closer the higher the exponent', async () => {
  const w = normal(m, k, 20);
  const h = new Float64Array(k * k);
  const salient = (column: number) => column % 16 === 3;
  for (let i = 0; i < k; i++) h[i * (k + 1)] = salient(i) ? 9 : 1;
  const error = async (exponent: number) => {
    const { weights } = await quantized(w, k, recipe({ exponent }), h);
    return weights.reduce((sum, v, i) => sum + (salient(i % k) ? (v - w[i]!) ** 2 : 0), 0);
  };
  const [none, some, most] = [await error(0), await error(4), await error(6)];
  expect(some).toBeLessThan(0.5 * none);
  expect(most).toBeLessThanOrEqual(some);
});

test('the unit of the Hessian and the number of threads do not matter', async () => {
  const w = normal(67, k, 30);
  const h = gram(k, 300, 31);
  const plain = await quantized(w, k, recipe(), h, { threads: 1 });
  const scaled = h.map((v) => v * 2 ** 33);
  expect((await quantized(w, k, recipe(), scaled)).bytes).toEqual(plain.bytes);
  for (const threads of [2, 3]) expect(await quantized(w, k, recipe(), h, { threads })).toEqual(plain);
});

test('dead columns become zero, and a silent input is rounded to nearest, on record', async () => {
  const w = normal(m, k, 40);
  const h = gram(k, 300, 41);
  for (let i = 0; i < k; i++) h[5 * k + i] = h[i * k + 5] = 0;
  const { weights, report } = await quantized(w, k, recipe(), h);
  for (let row = 0; row < m; row++) expect(weights[row * k + 5]).toBe(0);
  expect(report).toMatchObject({ deadColumns: 1, warnings: [{ kind: 'deadColumns' }] });
  const silent = await quantized(w, k, recipe(), new Float64Array(k * k));
  expect(silent.report).toMatchObject({ damping: null, warnings: [{ kind: 'keptRoundToNearest' }] });
  expect(silent.bytes).toEqual((await quantized(w, k, { method: 'rtn', bits: 2, groupSize: 32 })).bytes);
});
