import { describe, expect, it, vi } from 'vitest';
import { nativeMemory } from '../../../lib/native/index.js';
import { lutGemm, type Mode, Program, prepareActivations, stackRows } from '../../../lib/ops/index.js';
import { quantize, toPlanes } from '../../../lib/quantization/index.js';
import { QuantizedTensor, type SubBranch, Tensor } from '../../../lib/tensor/index.js';

const cols = 96;

function wave(shape: number[], step: number): Tensor {
  const count = shape.reduce((product, n) => product * n, 1);
  return Tensor.copyOf(
    Float32Array.from({ length: count }, (_, i) => Math.sin(i * step)),
    shape,
  );
}

const packed = (rows: number, grid: object = {}) =>
  quantize(wave([rows, cols], rows / 7), { method: 'rtn', bits: 3, groupSize: 32, ...grid });

const sameAs = (y: Tensor, x: Tensor, q: QuantizedTensor, options: object) => {
  using expected = lutGemm(x, q, options);
  expect(y.shape).toEqual(expected.shape);
  expect(y.read()).toEqual(expected.read());
};

describe('prepareActivations', () => {
  it.each([
    [1, 'fast'],
    [3, 'accurate'],
    [40, 'exact'],
    [300, 'fast'],
  ] as [number, Mode][])('gives the bits of lutGemm: %s tokens, %s', async (tokens, mode) => {
    const [q, k, v] = [await packed(70), await packed(16), await packed(33, { symmetric: true })] as const;
    using x = wave([tokens, cols], 0.3);
    for (const batchInvariant of [false, true]) {
      const options = { mode, batchInvariant };
      using prepared = prepareActivations(x, [q, k, v], options);
      for (const matrix of [v, q, k, q]) {
        using y = prepared.multiply(matrix);
        sameAs(y, x, matrix, options);
      }
      using out = Tensor.zeros('f32', [tokens, 70]);
      expect(prepared.multiply(q, { out, threads: 1 })).toBe(out);
      sameAs(out, x, q, options);
    }
  });

  it('gives the bits of lutGemm for planes and for sub-branches', async () => {
    const beside = async (rows: number, rank: number) => {
      const { layout, codes, scales, offsets } = await packed(rows);
      const half = (shape: number[], step: number) => {
        using single = wave(shape, step);
        const converted = Tensor.zeros('f16', shape);
        using program = new Program().convert(single, converted);
        program.run();
        return converted;
      };
      const subBranch = { a: half([rank, cols], 0.7), b: half([rows, rank], 0.3), aScales: null, bScales: null };
      return new QuantizedTensor(layout, codes, scales, offsets, { subBranch });
    };
    const planes = [
      await packed(70, { method: 'bcq' }),
      await packed(16, { method: 'bcq', symmetric: true }),
      await toPlanes(await packed(33)),
    ];
    const pairs = [await beside(70, 9), await packed(16), await beside(33, 1)];
    for (const matrices of [planes, pairs])
      for (const tokens of [1, 5, 40])
        for (const mode of ['exact', 'accurate', 'fast'] as const)
          for (const batchInvariant of [false, true]) {
            using x = wave([tokens, cols], 0.3);
            using prepared = prepareActivations(x, matrices, { mode, batchInvariant });
            for (const matrix of matrices) {
              using y = prepared.multiply(matrix);
              sameAs(y, x, matrix, { mode, batchInvariant });
            }
          }
    const [{ layout, codes, scales, offsets }] = pairs as [QuantizedTensor, ...QuantizedTensor[]];
    using x = wave([2, cols], 0.3);
    using without = lutGemm(x, new QuantizedTensor(layout, codes, scales, offsets));
    using y = prepareActivations(x, pairs).multiply(pairs[0]!);
    expect(y.read()).not.toEqual(without.read());
  });

  it('takes vectors and borrowed arrays', async () => {
    const q = await packed(20);
    const data = wave([cols], 0.3).read() as Float32Array;
    using prepared = prepareActivations(Tensor.from(data), [q]);
    const out = new Float32Array(20);
    prepared.multiply(q, { out: Tensor.from(out) });
    sameAs(Tensor.from(out), Tensor.from(data), q, {});
  });

  it('keeps what x was until it is updated, whatever becomes of x and of the weights', async () => {
    const q = await packed(70);
    const [x, before, after] = [wave([2, cols], 0.3), wave([2, cols], 0.3), wave([5, cols], 0.9)];
    using prepared = prepareActivations(x, [q]);
    x.fill(7);
    x.dispose();
    sameAs(prepared.multiply(q), before, q, {});
    prepared.update(after);
    sameAs(prepared.multiply(q), after, q, {});
    expect(() => prepared.multiply(q, { out: Tensor.zeros('f32', [2, 70]) })).toThrow(
      expect.objectContaining({ code: 'LUTRA_E_SHAPE' }),
    );
    using expected = lutGemm(after, q);
    q.dispose();
    expect(prepared.multiply(q).read()).toEqual(expected.read());
    const held = nativeMemory();
    prepared.dispose();
    prepared.dispose();
    expect(nativeMemory()).toBeLessThanOrEqual(held - 4 * 5 * cols);
    const disposed = expect.objectContaining({ code: 'LUTRA_E_DISPOSED' });
    expect(() => prepared.multiply(q)).toThrow(disposed);
    expect(() => prepared.update(after)).toThrow(disposed);
  });

  it('multiplies nothing after an update that failed', async () => {
    const q = await packed(70);
    using prepared = prepareActivations(wave([2, cols], 0.3), [q]);
    expect(() => prepared.update(wave([2, cols + 1], 0.3))).toThrow(expect.objectContaining({ code: 'LUTRA_E_SHAPE' }));
    expect(() => prepared.multiply(q)).toThrow(expect.objectContaining({ code: 'LUTRA_E_OPTION' }));
    prepared.update(wave([2, cols], 0.3));
    sameAs(prepared.multiply(q), wave([2, cols], 0.3), q, {});
  });

  it('refuses misuse', async () => {
    const [q, other, wide] = [await packed(16), await packed(16), await packed(16, { bits: 4 })];
    using x = wave([1, cols], 0.3);
    const refused = (code: string) => expect.objectContaining({ code });
    const call = (weights: unknown, options: object = {}, input: unknown = x) => {
      return () => prepareActivations(input as Tensor, weights as QuantizedTensor[], options);
    };
    expect(call([])).toThrow(refused('LUTRA_E_OPTION'));
    expect(call(q)).toThrow(refused('LUTRA_E_OPTION'));
    expect(call([q, wide])).toThrow(refused('LUTRA_E_OPTION'));
    expect(call([q, x])).toThrow(refused('LUTRA_E_DTYPE'));
    expect(call([q], {}, new Float32Array(cols))).toThrow(refused('LUTRA_E_DTYPE'));
    expect(call([q], {}, wave([1, cols - 1], 1))).toThrow(refused('LUTRA_E_SHAPE'));
    expect(call([q], { mode: 'best' })).toThrow(refused('LUTRA_E_OPTION'));
    expect(call([q], { threads: -1 })).toThrow(refused('LUTRA_E_OPTION'));
    expect(call([q], { batchInvariant: 1 })).toThrow(refused('LUTRA_E_OPTION'));
    using prepared = prepareActivations(x, [q]);
    expect(() => prepared.multiply(other)).toThrow(refused('LUTRA_E_OPTION'));
    expect(() => prepared.multiply(q, { threads: 0.5 })).toThrow(refused('LUTRA_E_OPTION'));
    expect(() => prepared.multiply(q, { out: new Float32Array(16) as never })).toThrow(refused('LUTRA_E_DTYPE'));
  });
});

describe('stackRows', () => {
  it.each([
    ['whole tiles', [64, 128, 33]],
    ['ragged tiles', [70, 16, 33, 1]],
    ['one matrix', [50]],
  ])('gives every row the bits that it has alone: %s', async (_, rows) => {
    const grids = [
      { bits: 2 },
      { bits: 3, symmetric: true },
      { bits: 4, groupSize: -1 },
      { method: 'hqq', bits: 3 },
      { method: 'bcq', bits: 2 },
      { method: 'bcq', bits: 4, groupSize: 64, rounds: 1 },
      { method: 'bcq', bits: 3, symmetric: true, rounds: 1 },
    ];
    for (const grid of grids) {
      const matrices = await Promise.all(rows.map((count) => packed(count, grid)));
      using stacked = stackRows(matrices);
      expect(stacked.layout).toMatchObject({ kind: matrices[0]!.layout.kind, offsets: matrices[0]!.layout.offsets });
      expect(stacked.shape).toEqual([rows.reduce((a, b) => a + b), cols]);
      for (const tokens of [1, 20])
        for (const mode of ['exact', 'accurate', 'fast'] as const) {
          using x = wave([tokens, cols], 0.3);
          using y = lutGemm(x, stacked, { mode });
          const found = y.read();
          let begin = 0;
          for (const matrix of matrices) {
            using alone = lutGemm(x, matrix, { mode });
            const expected = alone.read();
            const count = matrix.layout.rows;
            for (let t = 0; t < tokens; t++)
              expect(found.subarray(t * stacked.layout.rows + begin, t * stacked.layout.rows + begin + count)).toEqual(
                expected.subarray(t * count, (t + 1) * count),
              );
            begin += count;
          }
        }
    }
  });

  it('refuses matrices that are not alike', async () => {
    const q = await packed(16);
    const refused = (code: string) => expect.objectContaining({ code });
    expect(() => stackRows([])).toThrow(refused('LUTRA_E_OPTION'));
    for (const grid of [{ bits: 4 }, { groupSize: 16 }, { symmetric: true }]) {
      const other = await packed(16, grid);
      expect(() => stackRows([q, other])).toThrow(refused('LUTRA_E_SHAPE'));
    }
    const subBranch: SubBranch = {
      a: Tensor.zeros('f16', [2, cols]),
      b: Tensor.zeros('f16', [16, 2]),
      aScales: null,
      bScales: null,
    };
    const beside = new QuantizedTensor(q.layout, q.codes, q.scales, q.offsets, { subBranch });
    expect(() => stackRows([q, beside])).toThrow(refused('LUTRA_E_OPTION'));
    const tensor = Tensor.zeros('f32', [16, cols]) as unknown as QuantizedTensor;
    const named = (where: string) => expect.objectContaining({ code: 'LUTRA_E_DTYPE', where });
    expect(() => stackRows([tensor])).toThrow(named('stackRows[0]'));
    expect(() => stackRows([q, tensor])).toThrow(named('stackRows[1]'));
    expect(() => stackRows(q as unknown as QuantizedTensor[])).toThrow(refused('LUTRA_E_OPTION'));
  });

  it('gives all memory back wherever it fails', async () => {
    const matrices = [await packed(70), await packed(16)];
    const { run } = Program.prototype;
    const held = nativeMemory();
    for (const failing of [0, 1, 2]) {
      let runs = 0;
      const spy = vi.spyOn(Program.prototype, 'run').mockImplementation(function (this: Program, ...options) {
        if (runs++ === failing) throw new Error('run fails');
        return run.apply(this, options);
      });
      try {
        expect(() => stackRows(matrices)).toThrow('run fails');
      } finally {
        spy.mockRestore();
      }
      expect(nativeMemory()).toBe(held);
    }
    const gone = await packed(64);
    const whole = [await packed(64), gone];
    gone.offsets!.dispose();
    const before = nativeMemory();
    expect(() => stackRows(whole)).toThrow(expect.objectContaining({ code: 'LUTRA_E_DISPOSED' }));
    expect(nativeMemory()).toBe(before);
  });
});
