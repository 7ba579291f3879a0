import { describe, expect, it } from 'vitest';
import { Program } from '../../../lib/ops/index.js';
import { quantize } from '../../../lib/quantization/index.js';
import { codesBytes, type QuantizedLayout, scalesElements, Tensor } from '../../../lib/tensor/index.js';

/** Rows past a full tile, columns past a full chunk, a shorter last group. */
const layout: QuantizedLayout = { rows: 70, cols: 100, bits: 3, groupSize: 32, kind: 'uniform', offsets: 'none' };

const groups = 4;

describe('Program', () => {
  it('softmax gives the shares of the exponentials, row by row', () => {
    using x = Tensor.copyOf(Float32Array.of(1, 2, 4, -3, 0, 1000), [2, 3]);
    using y = Tensor.zeros('f32', [2, 3]);
    using program = new Program().softmax(x, y);
    expect(program.length).toBe(1);
    program.run();
    const sum = Math.exp(1) + Math.exp(2) + Math.exp(4);
    const expected = [Math.exp(1) / sum, Math.exp(2) / sum, Math.exp(4) / sum, 0, 0, 1];
    for (const [i, value] of y.read().entries()) expect(value).toBeCloseTo(expected[i] ?? Number.NaN, 6);
  });

  it('unpackCodes takes back what packCodes did', () => {
    const values = Uint8Array.from({ length: layout.rows * layout.cols }, (_, i) => (i * 7 + (i >> 5)) % 8);
    using codes = Tensor.copyOf(values, [layout.rows, layout.cols]);
    using packed = Tensor.zeros('u8', [codesBytes(layout)]);
    using back = Tensor.zeros('u8', [layout.rows, layout.cols]);
    using program = new Program().packCodes(layout, codes, packed).unpackCodes(layout, packed, back);
    program.run();
    expect(back.read()).toEqual(values);
    expect(packed.read()).not.toEqual(new Uint8Array(packed.elements));
  });

  it('unpackGroupValues takes back what packGroupValues did', () => {
    const shape = [layout.rows, groups];
    const values = Float32Array.from({ length: layout.rows * groups }, (_, i) => i + 1);
    using logical = Tensor.copyOf(values, shape);
    using tiled = Tensor.zeros('f32', [scalesElements(layout)]);
    using back = Tensor.zeros('f32', shape);
    using program = new Program();
    program.packGroupValues(layout, 1, logical, tiled).unpackGroupValues(layout, 1, tiled, back).run();
    expect(back.read()).toEqual(values);
    // Tile order: the first group of rows 0 to 63 comes first.
    expect(tiled.read()[1]).toBe(values[groups]);
  });

  it('linears gives every weight the bits that it has alone, packed alike or not', async () => {
    const [cols, tokens] = [96, 5];
    const wave = (rows: number, step: number) =>
      Tensor.copyOf(
        Float32Array.from({ length: rows * cols }, (_, i) => Math.sin(i * step)),
        [rows, cols],
      );
    const grids = [
      { rows: 70, bits: 3, groupSize: 32 },
      { rows: 33, bits: 4, groupSize: 32 },
      { rows: 16, bits: 3, groupSize: 32 },
      { rows: 64, bits: 3, groupSize: 16 },
    ];
    const packed = await Promise.all(
      grids.map(({ rows, ...grid }, i) => quantize(wave(rows, i + 1), { method: 'rtn', ...grid })),
    );
    const weights = [...packed, wave(20, 0.3)];
    const x = wave(tokens, 0.7);
    const results = () => weights.map(({ shape }) => Tensor.zeros('f32', [tokens, shape[0]!]));
    const [together, alone] = [results(), results()];
    using program = new Program().linears(weights, x, together, { mode: 'fast' });
    expect(program.length).toBe(4);
    program.run();
    for (const [i, weight] of weights.entries()) {
      using single = new Program().linear(weight, x, alone[i]!, { mode: 'fast' });
      single.run();
      expect(together[i]!.read()).toEqual(alone[i]!.read());
    }
  });
});
