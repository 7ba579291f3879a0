import { rmSync } from 'node:fs';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { Random } from '../../../lib/calibration/random.js';
import { type GenerationOptions, loadModel, type Model } from '../../../lib/inference/index.js';
import { Program } from '../../../lib/ops/index.js';
import { quantizeModel } from '../../../lib/pipeline/index.js';
import { quantize } from '../../../lib/quantization/index.js';
import { Tensor } from '../../../lib/tensor/index.js';
import { hostCuda } from '../../host-cuda.js';
import { type TinyOptions, withTinyModel } from '../../tiny-checkpoint.js';

const ids = [1, 5, 9, 3, 12, 30, 7, 5];

/** Sum of squares of what differs, over that of the first. */
function relativeError(expected: Float32Array, found: Float32Array): number {
  let error = 0;
  let power = 0;
  for (const [i, value] of expected.entries()) {
    error += (value - found[i]!) ** 2;
    power += value ** 2;
  }
  return error / power;
}

const logitsOf = async (model: Model) => (await model.logits(ids)).read() as Float32Array;

async function tokensOf(model: Model, options: GenerationOptions): Promise<number[]> {
  const tokens: number[] = [];
  for await (const { token } of model.generate([1, 4, 8], options)) tokens.push(token);
  return tokens;
}
const greedy = (model: Model) => tokensOf(model, { maxTokens: 6, temperature: 0, ignoreEos: true });

// On the host's runtime: what is checked is the way from JavaScript to the kernels and back, not a device.
describe('a model on a device', () => {
  beforeEach(() => vi.stubEnv('LUTRA_CUDA_PATH', hostCuda()));
  afterEach(() => vi.unstubAllEnvs());

  const models: Record<string, TinyOptions> = {
    'plain, of 32 bits': {},
    'of 16 bits, with shared heads and tied embeddings': {
      dtype: 'BF16',
      config: { num_key_value_heads: 2, tie_word_embeddings: true },
    },
  };
  for (const [name, options] of Object.entries(models))
    it(`answers as the processor does: ${name}`, async () => {
      await withTinyModel(options, async (dir) => {
        using here = await loadModel(dir, { device: 'cpu' });
        using there = await loadModel(dir, { device: 'cuda' });
        expect(there.device).toBe('cuda:0');
        expect(relativeError(await logitsOf(here), await logitsOf(there))).toBeLessThan(1e-10);
        expect(await greedy(there)).toEqual(await greedy(here));
      });
    });

  const random = new Random(5);
  const drawn = (rows: number, cols: number) =>
    Tensor.copyOf(
      Float32Array.from({ length: rows * cols }, () => random.next() - 0.5),
      [rows, cols],
    );

  it('gives a token the bits that it has alone where that is asked for', async () => {
    using x = drawn(21, 80);
    using first = Tensor.copyOf((x.read() as Float32Array).slice(0, 80), [1, 80]);
    using w = drawn(50, 80);
    using uniform = await quantize(w, { method: 'rtn', bits: 3, groupSize: 32 });
    const product = (rows: Tensor, n: number) => {
      using y = Tensor.zeros('f32', [n, 50]);
      using program = new Program('cuda:0');
      program.linears([uniform], rows, [y], { mode: 'exact', batchInvariant: true }).run();
      program.download(y);
      return [...y.read()].slice(0, 50);
    };
    expect(product(x, 21)).toEqual(product(first, 1));
  });

  it('multiplies packed weights with few and many tokens', async () => {
    using x = drawn(21, 80);
    using w = drawn(50, 80);
    using uniform = await quantize(w, { method: 'rtn', bits: 3, groupSize: 32 });
    using planes = await quantize(w, { method: 'bcq', bits: 2, groupSize: -1 });
    for (const mode of ['exact', 'accurate', 'fast'] as const) {
      using here = new Program();
      using there = new Program('cuda:0');
      const results = (program: Program) => {
        const y = [Tensor.zeros('f32', [21, 50]), Tensor.zeros('f32', [21, 50])];
        program.linears([uniform, planes], x, y, { mode: program === here ? 'exact' : mode }).run();
        return y;
      };
      const expected = results(here);
      const found = results(there);
      for (const [i, y] of found.entries()) {
        there.download(y);
        const error = relativeError(expected[i]!.read() as Float32Array, y.read() as Float32Array);
        expect(error).toBeLessThan({ exact: 1e-11, accurate: 1e-7, fast: 2e-4 }[mode]);
      }
      for (const y of [...expected, ...found]) y.dispose();
    }
  });

  it('runs a quantized model with sub-branches', async () => {
    await withTinyModel({ config: { hidden_size: 64, intermediate_size: 96 } }, async (dir) => {
      const out = `${dir}-quantized`;
      const recipe = {
        solver: { method: 'rtn' },
        grid: { bits: 4, groupSize: 32 },
        lowRank: { method: 'loftq', rank: 8 },
      };
      try {
        await quantizeModel({ model: dir, out, recipe: recipe as never });
        using here = await loadModel(out, { device: 'cpu', mode: 'exact' });
        using there = await loadModel(out, { device: 'cuda', mode: 'exact' });
        expect(relativeError(await logitsOf(here), await logitsOf(there))).toBeLessThan(1e-9);
        expect(await greedy(there)).toEqual(await greedy(here));
      } finally {
        rmSync(out, { recursive: true, force: true });
      }
    });
  });

  it('finds the largest number as the processor does', () => {
    const rows = [
      [1, 5, 5, 2],
      [Number.NaN, 3, 9, 0],
      [0, Number.NaN, 7, 7],
      [-Infinity, -Infinity, -Infinity, -Infinity],
    ];
    using x = Tensor.copyOf(Float32Array.from(rows.flat()), [4, 4]);
    for (const device of ['cpu', 'cuda:0'] as const) {
      using index = Tensor.zeros('i32', [4]);
      using value = Tensor.zeros('f32', [4]);
      using program = new Program(device).argMax(x, index, value);
      program.run();
      if (device !== 'cpu') for (const tensor of [index, value]) program.download(tensor);
      expect([...index.read()]).toEqual([1, 0, 2, 0]);
      expect([...value.read()]).toEqual([5, Number.NaN, Number.NaN, -Infinity]);
    }
  });

  it('samples, too, and refuses logits that are not numbers', async () => {
    await withTinyModel({}, async (dir) => {
      using here = await loadModel(dir, { device: 'cpu', mode: 'exact' });
      using there = await loadModel(dir, { device: 'cuda', mode: 'exact' });
      const options = { maxTokens: 4, temperature: 0.8, seed: 3, ignoreEos: true };
      expect(await tokensOf(there, options)).toEqual(await tokensOf(here, options));
      using broken = await loadModel(dir, { device: 'cuda' });
      (broken.weights.get('model.norm.weight') as Tensor).fill(Number.NaN);
      await expect(greedy(broken)).rejects.toMatchObject({ code: 'LUTRA_E_NON_FINITE' });
    });
  });

  it('moves bytes only where upload and download say so', () => {
    using x = Tensor.copyOf(Float32Array.of(1, 2, 3, 4), [2, 2]);
    using y = Tensor.copyOf(Float32Array.of(10, 20, 30, 40), [2, 2]);
    using program = new Program('cuda:0');
    program.add(x, y);
    x.fill(100);
    program.run();
    expect([...y.read()]).toEqual([10, 20, 30, 40]);
    program.download(y);
    expect([...y.read()]).toEqual([11, 22, 33, 44]);
    program.upload(x);
    program.run();
    program.download(y);
    expect([...y.read()]).toEqual([111, 122, 133, 144]);
  });

  it('has nothing to download of a tensor that no program named', () => {
    using x = Tensor.zeros('f32', [2, 2]);
    using reserved = Tensor.copyOf(Float32Array.of(1, 2, 3, 4), [2, 2]);
    using program = new Program('cuda:0');
    expect(() => program.download(x)).toThrow(expect.objectContaining({ code: 'LUTRA_E_DEVICE' }));
    program.reserve(reserved);
    program.download(reserved);
    expect([...reserved.read()]).toEqual([0, 0, 0, 0]);
    reserved.fill(5);
    program.upload(reserved);
    program.reserve(reserved);
    program.add(reserved, reserved).run();
    program.download(reserved);
    expect([...reserved.read()]).toEqual([10, 10, 10, 10]);
  });

  it('refuses what a device does not do, and goes on', () => {
    using x = Tensor.copyOf(Float32Array.of(1, 2), [1, 2]);
    using y = Tensor.zeros('f32', [1, 2]);
    using narrow = Tensor.zeros('f32', [1, 1]);
    using program = new Program('cuda:0');
    expect(() => program.softmax(x, y)).toThrow(expect.objectContaining({ code: 'LUTRA_E_DEVICE' }));
    expect(() => program.add(narrow, y)).toThrow(expect.objectContaining({ code: 'LUTRA_E_SHAPE' }));
    program.cacheAppend(x, y);
    expect(() => program.run({ position: 1 })).toThrow(expect.objectContaining({ code: 'LUTRA_E_OPTION' }));
    program.run();
    program.download(y);
    expect([...y.read()]).toEqual([1, 2]);
    expect(() => program.add(x, y)).toThrow(expect.objectContaining({ code: 'LUTRA_E_OPTION' }));
    using elsewhere = new Program();
    expect(() => elsewhere.upload(x)).toThrow(expect.objectContaining({ code: 'LUTRA_E_OPTION' }));
    expect(() => new Program('cuda:7')).toThrow(expect.objectContaining({ code: 'LUTRA_E_DEVICE' }));
  });
});
