import { expect, test } from 'vitest';
import { rotaryMean } from '../../../lib/calibration/index.js';
import { ropeFrequencies, ropeTable } from '../../../lib/models/index.js';
import { Program } from '../../../lib/ops/index.js';
import { Tensor } from '../../../lib/tensor/index.js';
import { gram } from '../quantization/matrices.js';

const config = { headDim: 10, ropeTheta: 100, ropeScaling: { type: 'none' } } as const;
const { headDim: d } = config;
const frequencies = ropeFrequencies(config);

/** f64 [d, d] at [row, column]: the rotation at a position, by the operator that the model runs. */
function rotation(position: number): Float64Array {
  const unit = Float32Array.from({ length: d * d }, (_, i) => Number(i % (d + 1) === 0));
  using rows = Tensor.copyOf(unit, [1, d * d]);
  using table = ropeTable(config, position + 1);
  using program = new Program().rope(rows, table, d);
  program.run({ position });
  const turned = rows.read() as Float32Array;
  // Head i is the i-th basis vector turned: the i-th column of the rotation.
  return Float64Array.from({ length: d * d }, (_, i) => turned[(i % d) * d + Math.floor(i / d)]!);
}

function turnedBack(c: Float64Array, r: Float64Array): Float64Array {
  const result = new Float64Array(d * d);
  for (let i = 0; i < d; i++)
    for (let j = 0; j < d; j++)
      for (let p = 0; p < d; p++)
        for (let q = 0; q < d; q++) result[i * d + j]! += r[p * d + i]! * c[p * d + q]! * r[q * d + j]!;
  return result;
}

test('it is the mean of what the model’s rotations make of the matrix', () => {
  const c = gram(d, 30, 1);
  for (const positions of [1, 2, 3, 17]) {
    const expected = new Float64Array(d * d);
    for (let t = 0; t < positions; t++)
      turnedBack(c, rotation(t)).forEach((v, i) => {
        expected[i]! += v / positions;
      });
    rotaryMean(c, frequencies, positions).forEach((v, i) => {
      expect(Math.abs(v - expected[i]!)).toBeLessThan(1e-5 * c[0]!);
    });
  }
});

test('one position is the matrix itself, and any number keeps trace, symmetry and positive forms', () => {
  const c = gram(d, 30, 2);
  rotaryMean(c, frequencies, 1).forEach((v, i) => {
    expect(v).toBeCloseTo(c[i]!, 9);
  });
  const trace = (x: Float64Array) => x.reduce((sum, v, i) => sum + (i % (d + 1) === 0 ? v : 0), 0);
  for (const positions of [2, 33, 4096]) {
    const mean = rotaryMean(c, frequencies, positions);
    expect(trace(mean) / trace(c)).toBeCloseTo(1, 12);
    for (let i = 0; i < d; i++) for (let j = 0; j < i; j++) expect(mean[i * d + j]).toBeCloseTo(mean[j * d + i]!, 9);
    for (let seed = 0; seed < 30; seed++) {
      const x = Float64Array.from({ length: d }, (_, i) => Math.cos(seed * 7.1 + i * i * 1.3));
      let form = 0;
      for (let i = 0; i < d; i++) for (let j = 0; j < d; j++) form += x[i]! * mean[i * d + j]! * x[j]!;
      expect(form).toBeGreaterThan(0);
    }
  }
});

test('many positions leave nothing between pairs of different angles', () => {
  const mean = rotaryMean(gram(d, 30, 3), frequencies, 1e7);
  const half = d / 2;
  for (let i = 0; i < d; i++)
    for (let j = 0; j < d; j++)
      if (i % half !== j % half) expect(Math.abs(mean[i * d + j]!)).toBeLessThan(1e-4 * mean[0]!);
});
