import { afterAll, describe, expect, it, test } from 'vitest';
import { buildGraph, createBlockTape, parseConfig, recordBlockLoss } from '../../../lib/models/index.js';
import { dequantize, Program } from '../../../lib/ops/index.js';
import {
  type FinetuneInput,
  finetunes,
  type Grid,
  normalizeRecipe,
  pack,
  prepareInputs,
  quantize,
  type SolvedLayer,
  solveMatrix,
} from '../../../lib/quantization/index.js';
import { Tensor } from '../../../lib/tensor/index.js';
import { tinyConfig } from '../pipeline/random-model.js';
import { normal } from './matrices.js';

const method = finetunes.find(({ name }) => name === 'decoupleq-block')!;
const call = { where: 'block' };
const config = parseConfig({ ...tinyConfig, attention_bias: true }, 'config.json');
const block = buildGraph(config).blocks[0]!;
const [count, sequenceLength] = [3, 12];
const made: Tensor[] = [];
afterAll(() => {
  for (const tensor of made) tensor.dispose();
});

const options = (changes: object = {}) => method.options.parse({ learningRate: 1e-3, ...changes });

interface Case {
  input: FinetuneInput<unknown>;
  losses: number[];
  solved: SolvedLayer[];
}

/** A random block whose layers are solved by a recipe; its windows and targets are random. */
async function blockOf(recipe: object, choice: unknown, normDtype: 'f32' | 'f16' = 'f16'): Promise<Case> {
  const full = normalizeRecipe(recipe);
  const weights = new Map<string, Tensor>();
  const keep = (name: string, tensor: Tensor) => {
    weights.set(name, tensor);
    made.push(tensor);
  };
  for (const name of [block.attentionNorm, block.feedForwardNorm]) {
    const ones = new Float32Array(64).fill(1);
    keep(
      name,
      normDtype === 'f32' ? Tensor.copyOf(ones) : Tensor.copyOf(new Uint16Array(64).fill(0x3c00), [64], 'f16'),
    );
  }
  const layers: SolvedLayer[] = [];
  const prepared = await prepareInputs(full, {}, call);
  for (const [index, node] of block.linears.entries()) {
    const { name, outFeatures: m, inFeatures: k, bias } = node;
    using w = Tensor.copyOf(normal(m, k, 10 + index, 1 / Math.sqrt(k)), [m, k]);
    const { grid, scaleDtype, solution } = await solveMatrix(w, full, { ...prepared, statistics: {} }, { where: name });
    layers.push({ node, grid, scaleDtype, codes: solution.codes, values: solution.values, subBranch: null });
    if (bias) keep(bias, Tensor.copyOf(normal(1, m, 50 + index, 0.1), [m]));
  }
  const data = (seed: number, scale: number) =>
    Array.from({ length: count }, (_, window) => normal(sequenceLength, 64, seed + window, scale));
  const [inputs, targets] = [data(100, 1), data(200, 2)];
  const losses: number[] = [];
  const windows = {
    count,
    sequenceLength,
    input: async (window: number, hidden: Tensor) => hidden.write(inputs[window]!),
    target: async (window: number, hidden: Tensor) => hidden.write(targets[window]!),
  };
  const onEpoch = ({ loss }: { loss: number }) => losses.push(loss);
  const dtype = () => normDtype;
  return {
    input: { config, block, weights, dtype, layers, windows, options: choice, onEpoch },
    losses,
    solved: layers,
  };
}

/** What the block's packed layers, norms and biases make of the windows, and the mean squared distance from their targets. */
async function runPacked({
  input,
  solved,
}: Pick<Case, 'input' | 'solved'>): Promise<{ outputs: Float32Array[]; loss: number }> {
  const weights = new Map(input.weights);
  for (const { codes, values, grid, scaleDtype, subBranch, node } of solved) {
    using packed = await pack({ grid, scaleDtype, solution: { codes, values }, subBranch }, { where: node.name });
    const w = dequantize(packed);
    made.push(w);
    weights.set(node.name, w);
  }
  const tape = createBlockTape(config, sequenceLength);
  using program = new Program();
  recordBlockLoss(program, { config, block, weights, tape });
  const outputs: Float32Array[] = [];
  let sum = 0;
  for (let window = 0; window < count; window++) {
    await input.windows.input(window, tape.input);
    await input.windows.target(window, tape.target);
    program.run();
    outputs.push(tape.hidden.read() as Float32Array);
    for (const loss of tape.loss.read()) sum += loss;
  }
  tape.dispose();
  return { outputs, loss: sum / (count * sequenceLength) };
}

const numbersOf = ({ values }: SolvedLayer): number[][] =>
  Object.values(values).flatMap((value) => (value instanceof Tensor ? [[...value.read()]] : []));
const bitsOf = (cases: Case): unknown => [
  cases.solved.map(numbersOf),
  [...cases.input.weights].map(([name, tensor]) => [name, (tensor as Tensor).read()]),
];

const recipes: [string, Grid & { method: string }][] = [
  ['zero codes', { method: 'rtn', bits: 2, groupSize: 32, symmetric: false }],
  ['a symmetric grid', { method: 'rtn', bits: 3, groupSize: -1, symmetric: true }],
  ['real offsets', { method: 'hqq', bits: 2, groupSize: 32, symmetric: false }],
  ['planes', { method: 'bcq', bits: 2, groupSize: 32, symmetric: false }],
  ['symmetric planes', { method: 'bcq', bits: 2, groupSize: 64, symmetric: true }],
];

describe.each(recipes)('the block stage on %s', (_, recipe) => {
  it('lowers the loss, moves what is stored and leaves the codes', async () => {
    const run = await blockOf(recipe, options());
    const codes = run.solved.map((layer) => layer.codes.read());
    const before = run.solved.map(numbersOf);
    const { lossBefore, lossAfter } = await method.run(run.input, call);
    expect(run.losses).toHaveLength(4);
    expect(lossAfter).toBe(Math.min(lossBefore, ...run.losses));
    expect(lossAfter).toBeLessThan(0.99 * lossBefore);
    run.solved.forEach((layer, index) => {
      expect(layer.codes.read()).toEqual(codes[index]);
      expect(numbersOf(layer)[0]).not.toEqual(before[index]![0]);
      expect(layer.values.storage).toBe(
        recipe.symmetric && recipe.method === 'rtn' ? 'zeroCode' : method.storageAfter(layer.values.storage),
      );
      // The second numbers of a symmetric grid follow from the first: they must not move.
      if (recipe.symmetric) expect(numbersOf(layer)[1]).toEqual(before[index]![1]);
    });
  });

  it('ends in numbers that are stored as they are: what is packed has the loss that is told', async () => {
    const run = await blockOf(recipe, options());
    const { lossAfter } = await method.run(run.input, call);
    expect((await runPacked(run)).loss).toBe(lossAfter);
  });
});

const rtn = { method: 'rtn', bits: 2, groupSize: 32 };

it('keeps what it began with where every step makes it worse', async () => {
  const run = await blockOf({ ...rtn, method: 'hqq' }, options({ learningRate: 10, epochs: 2 }));
  const before = bitsOf(run);
  const { lossBefore, lossAfter } = await method.run(run.input, call);
  expect(Math.min(...run.losses)).toBeGreaterThan(lossBefore);
  expect(lossAfter).toBe(lossBefore);
  expect(bitsOf(run)).toEqual(before);
});

it('a real offset takes the place of every zero code, nothing else where the steps are too small to be stored', async () => {
  const run = await blockOf(rtn, options({ learningRate: 1e-30, epochs: 1, norms: false }));
  const before = run.solved.map(numbersOf);
  await method.run(run.input, call);
  run.solved.forEach((layer, index) => {
    const [scales, offsets] = numbersOf(layer) as [number[], number[]];
    const [scalesBefore, zeros] = before[index] as [number[], number[]];
    expect(layer.values.storage).toBe('realOffset');
    expect(scales).toEqual(scalesBefore);
    offsets.forEach((offset, i) => {
      expect(Math.abs(offset + scales[i]! * zeros[i]!)).toBeLessThanOrEqual(Math.abs(offset) * 2 ** -11);
    });
  });
});

it('trains norms where it is asked to, rounded to the type that they are stored in', async () => {
  for (const norms of [true, false]) {
    const run = await blockOf(rtn, options({ norms }));
    const names = method.trains(options({ norms }), block);
    await method.run(run.input, call);
    expect(names).toEqual(norms ? [block.attentionNorm, block.feedForwardNorm] : []);
    for (const name of [block.attentionNorm, block.feedForwardNorm]) {
      const tensor = run.input.weights.get(name) as Tensor;
      expect(tensor.dtype).toBe('f16');
      expect(tensor.read().every((bits) => bits === 0x3c00)).toBe(!norms);
    }
    for (const [name, tensor] of run.input.weights)
      if (name.endsWith('bias')) expect((tensor as Tensor).dtype, name).toBe('f32');
  }
});

it('moves nothing where the output is the target already', async () => {
  const run = await blockOf({ ...rtn, method: 'hqq' }, options({ weightDecay: 0, epochs: 1 }), 'f32');
  const { outputs } = await runPacked(run);
  const windows = {
    ...run.input.windows,
    target: async (window: number, hidden: Tensor) => hidden.write(outputs[window]!),
  };
  const before = bitsOf(run);
  const { lossBefore, lossAfter } = await method.run({ ...run.input, windows }, call);
  expect(lossBefore).toBe(0);
  expect(lossAfter).toBe(0);
  expect(bitsOf(run)).toEqual(before);
});

it('a first step is the learning rate, in units of the scales where it is relative', async () => {
  for (const relative of [false, true]) {
    const learningRate = 2 ** -7;
    const run = await blockOf(rtn, options({ relative, learningRate, epochs: 1, epsilon: 1e-30 }));
    const before = run.solved.map((layer) => numbersOf(layer)[0]!);
    await method.run({ ...run.input, windows: { ...run.input.windows, count: 1 } }, call);
    run.solved.forEach((layer, index) => {
      const scales = before[index]!;
      const unit = relative ? Math.sqrt(scales.reduce((sum, scale) => sum + scale * scale, 0) / scales.length) : 1;
      const moved = numbersOf(layer)[0]!.map((scale, i) => Math.abs(scale - scales[i]!));
      const [mean, most] = [moved.reduce((sum, one) => sum + one, 0) / moved.length, Math.max(...moved)];
      expect(mean / (learningRate * unit)).toBeCloseTo(1, 1);
      expect(most / (learningRate * unit)).toBeLessThan(1.1);
    });
  }
});

it('gives the same bits for every number of threads', async () => {
  const results = [];
  for (const threads of [1, 2, 7]) {
    const run = await blockOf(rtn, options({ epochs: 2 }));
    const report = await method.run(run.input, { ...call, threads });
    results.push([report, bitsOf(run)]);
  }
  expect(results[1]).toEqual(results[0]);
  expect(results[2]).toEqual(results[0]);
});

it('an abort rejects with its reason', async () => {
  const run = await blockOf(rtn, options({ epochs: 100000 }));
  const controller = new AbortController();
  const reason = new Error('enough');
  const work = method.run(run.input, { ...call, signal: controller.signal });
  setTimeout(() => controller.abort(reason), 50);
  await expect(work).rejects.toBe(reason);
});

it('a sub-branch stays, and its share counts', async () => {
  const run = await blockOf({ ...rtn, method: 'hqq' }, options());
  const half = (values: Float32Array, shape: number[]) => {
    const tensor = Tensor.copyOf(
      Uint16Array.from(values, (v) => (v < 0 ? 0xb400 : 0x3400)),
      shape,
      'f16',
    );
    made.push(tensor);
    return tensor;
  };
  const solved = run.solved.map((layer) => {
    const [m, k] = layer.codes.shape as [number, number];
    const subBranch = {
      a: half(normal(2, k, 7), [2, k]),
      b: half(normal(m, 2, 8), [m, 2]),
      aScales: null,
      bScales: null,
    };
    return { ...layer, subBranch };
  });
  const withBranch = { input: { ...run.input, layers: solved }, solved };
  const before = await runPacked(withBranch);
  const { lossBefore, lossAfter } = await method.run(withBranch.input, call);
  expect(lossBefore / before.loss).toBeCloseTo(1, 5);
  expect(lossAfter).toBeLessThan(lossBefore);
  expect(lossAfter / (await runPacked(withBranch)).loss).toBeCloseTo(1, 5);
  expect(lossBefore).not.toBeCloseTo((await runPacked(run)).loss, 5);
});

test('a recipe names it in its finetune list; one matrix alone has no block', async () => {
  const recipe = normalizeRecipe({ ...rtn, finetune: [{ method: 'decoupleq-block' }] });
  expect(recipe.finetune).toEqual([
    {
      method: 'decoupleq-block',
      epochs: 4,
      learningRate: 1e-5,
      relative: false,
      epsilon: 2e-5,
      weightDecay: 1e-6,
      norms: true,
    },
  ]);
  expect(normalizeRecipe(recipe)).toEqual(recipe);
  using w = Tensor.zeros('f32', [16, 32]);
  await expect(quantize(w, recipe)).rejects.toMatchObject({ code: 'LUTRA_E_OPTION', where: 'recipe.finetune' });
  expect(() => normalizeRecipe({ ...rtn, finetune: [{ method: 'decoupleq-block', epochs: 0 }] })).toThrow(
    expect.objectContaining({ code: 'LUTRA_E_OPTION', where: 'recipe.finetune.0.epochs' }),
  );
});
