import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { z } from 'zod';
import { readCheckpoint } from '../../../lib/formats/index.js';
import { dequantize } from '../../../lib/ops/index.js';
import { quantizeModel } from '../../../lib/pipeline/index.js';
import { quantize, type Solver, type Statistics, solvers } from '../../../lib/quantization/index.js';
import { type QuantizedTensor, Tensor } from '../../../lib/tensor/index.js';
import { scratchDirectory, words, writeRandomModel } from '../pipeline/random-model.js';

/** Signs and a column-independent magnitude: what CONTRIBUTING's "Add a method" asks for, in one object. */
const options = z.strictObject({ magnitude: z.number().default(0.5), informed: z.boolean().default(false) });
const seen: Statistics[] = [];
const signs: Solver<z.infer<typeof options>, null> = {
  name: 'signs',
  scope: 'matrix',
  storage: 'planes',
  symmetric: false,
  needs: ({ informed }) => (informed ? ['hessian'] : []),
  options,
  async prepare(statistics) {
    seen.push(statistics);
    return null;
  },
  release() {},
  async solve({ w, grid, options: { magnitude } }) {
    const [m = 0, k = 0] = w.shape;
    const groups = grid.groupSize === -1 ? 1 : Math.ceil(k / grid.groupSize);
    const codes = Tensor.copyOf(
      Uint8Array.from(w.read(), (v) => Number(v >= 0)),
      [m, k],
    );
    const alphas = Tensor.zeros('f32', [m, groups, grid.bits]);
    alphas.fill(2 * magnitude);
    const offsets = Tensor.zeros('f32', [m, groups]);
    offsets.fill(-magnitude);
    return { codes, values: { storage: 'planes', alphas, offsets }, damping: null, deadColumns: 0, warnings: [] };
  },
};

const registry = solvers as Solver[];
const scratch = scratchDirectory();
const model = join(scratch, 'model');
beforeAll(async () => {
  registry.push(signs as Solver);
  await writeRandomModel(model);
});
afterAll(() => {
  registry.splice(registry.indexOf(signs as Solver), 1);
});

test('a line in the registry is enough for quantize', async () => {
  const w = Tensor.from(Float32Array.of(3, -1, 0, -7), [1, 4]);
  using q = await quantize(w, { method: 'signs', bits: 2, groupSize: 32, magnitude: 0.25 });
  expect([...dequantize(q).read()]).toEqual([0.25, -0.25, 0.25, -0.25]);
  const wrong = quantize(w, { method: 'signs', bits: 2, groupSize: 32, magnitud: 1 });
  await expect(wrong).rejects.toMatchObject({ code: 'LUTRA_E_OPTION', where: 'recipe.magnitud' });
  const symmetric = quantize(w, { method: 'signs', bits: 2, groupSize: 32, symmetric: true });
  await expect(symmetric).rejects.toMatchObject({ code: 'LUTRA_E_OPTION', where: 'recipe.symmetric' });
});

test('and for a whole model, which collects what the options ask for and nothing else', async () => {
  const run = async (informed: boolean) => {
    seen.length = 0;
    const out = join(scratch, String(informed));
    const recipe = { method: 'signs', bits: 2, groupSize: 32, informed };
    const calibration = { texts: [words(3000)], samples: 2, sequenceLength: 16 };
    const { layers } = await quantizeModel({ model, out, recipe, ...(informed ? { calibration } : {}) });
    await using checkpoint = await readCheckpoint(out);
    using first = (await checkpoint.load(layers[0]!.name)) as QuantizedTensor;
    expect(first.layout).toMatchObject({ kind: 'planes', offsets: 'real', bits: 2 });
    using weights = dequantize(first);
    return { layers, values: new Set(weights.read()) };
  };
  const plain = await run(false);
  expect(plain.values).toEqual(new Set([-0.5, 0.5]));
  expect(plain.layers.every(({ tokens, warnings }) => tokens === null && warnings.length === 0)).toBe(true);
  expect(seen).toEqual([{}]);
  // What asks for a Hessian must not be worse in it than round to nearest, as signs of one half are.
  const informed = await run(true);
  expect(informed.values.size).toBeGreaterThan(2);
  expect(informed.layers.every(({ tokens }) => tokens === 32)).toBe(true);
  for (const { warnings } of informed.layers) expect(warnings.map(({ kind }) => kind)).toEqual(['keptRoundToNearest']);
  expect(seen.length).toBeGreaterThan(1);
  expect(seen.every(({ hessian, tokens }) => hessian && tokens === 32)).toBe(true);
});
