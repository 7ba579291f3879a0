import { describe, expect, it } from 'vitest';
import {
  type BlockTape,
  buildGraph,
  createBlockTape,
  parseConfig,
  recordBlockBackward,
  recordBlockForward,
  recordBlockLoss,
  recordHead,
  recordHeadBackward,
} from '../../../lib/models/index.js';
import { Program } from '../../../lib/ops/index.js';
import { Tensor } from '../../../lib/tensor/index.js';
import { normal } from '../quantization/matrices.js';

const tokens = 9;
const base = {
  model_type: 'llama',
  hidden_size: 24,
  intermediate_size: 40,
  num_hidden_layers: 1,
  num_attention_heads: 4,
  num_key_value_heads: 2,
  head_dim: 10,
  vocab_size: 50,
  max_position_embeddings: 32,
};

/** A random block, its tape with a random input and target, and a place for the derivatives by each of its matrices and norms. */
function problem(changes: object) {
  const config = parseConfig({ ...base, ...changes }, 'config.json');
  const graph = buildGraph(config);
  const block = graph.blocks[0]!;
  const weights = new Map<string, Tensor>();
  const gradients = new Map<string, Tensor>();
  let seed = 1;
  for (const name of block.tensors) {
    const shape = graph.shapes.get(name)!;
    const [rows, cols] = shape.length === 2 ? shape : [1, shape[0]];
    weights.set(name, Tensor.copyOf(normal(rows!, cols!, seed++, name.includes('norm') ? 1 : 0.4), shape));
    if (!name.endsWith('.bias')) gradients.set(name, Tensor.zeros('f32', shape));
  }
  const tape = createBlockTape(config, tokens);
  tape.input.write(normal(tokens, 24, 90));
  tape.target.write(normal(tokens, 24, 91, 2));
  return { config, block, weights, gradients, tape };
}

const meanLoss = (tape: BlockTape) =>
  [...(tape.loss.read() as Float64Array)].reduce((sum, one) => sum + one / tokens, 0);

describe.each([
  ['grouped heads', {}],
  ['one key-value head, a sliding window', { num_key_value_heads: 1, model_type: 'mistral', sliding_window: 4 }],
  ['biases', { attention_bias: true, mlp_bias: true }],
])('the way back through a block with %s', (_, changes) => {
  it('gives the slopes of the recorded forward pass, tensor by tensor', () => {
    const p = problem(changes);
    using forward = new Program();
    recordBlockLoss(forward, p);
    using both = new Program();
    recordBlockLoss(both, p);
    recordBlockBackward(both, p, p.gradients);
    both.run();
    for (const [name, gradient] of p.gradients) {
      const weight = p.weights.get(name)!;
      const start = weight.read() as Float32Array;
      const slope = gradient.read() as Float32Array;
      // Along its own gradient a loss has its steepest slope, which fp32 shows best.
      const length = Math.hypot(...slope);
      const lossAt = (step: number) => {
        weight.write(start.map((w, i) => w + (step * slope[i]!) / length));
        forward.run();
        weight.write(start);
        return meanLoss(p.tape);
      };
      const step = 2 ** -7;
      expect((lossAt(step) - lossAt(-step)) / (2 * step) / length, name).toBeCloseTo(1, 2);
    }
  });
});

it('norms that nobody asks for change no other derivative', () => {
  const p = problem({});
  const run = (gradients: Map<string, Tensor>) => {
    using program = new Program();
    recordBlockLoss(program, p);
    recordBlockBackward(program, p, gradients);
    program.run();
    return [...gradients].map(([name, gradient]) => [name, gradient.read()] as const);
  };
  const all = new Map(run(p.gradients));
  const linears = new Map([...p.gradients].filter(([name]) => !name.includes('norm')));
  for (const [name, gradient] of run(linears)) expect(gradient, name).toEqual(all.get(name));
});

it('nothing is to be changed where the output is the target', () => {
  const p = problem({});
  using forward = new Program();
  recordBlockLoss(forward, p);
  forward.run();
  p.tape.target.write(p.tape.hidden.read());
  using both = new Program();
  recordBlockLoss(both, p);
  recordBlockBackward(both, p, p.gradients);
  both.run();
  expect(meanLoss(p.tape)).toBe(0);
  for (const [name, gradient] of p.gradients)
    expect(
      gradient.read().every((slope) => slope === 0),
      name,
    ).toBe(true);
});

it('goes through blocks and the output layer: the slopes of the text’s loss', () => {
  const config = parseConfig({ ...base, num_hidden_layers: 2 }, 'config.json');
  const graph = buildGraph(config);
  let seed = 1;
  const random = (name: string) => {
    const [rows = 1, cols] = graph.shapes.get(name)!;
    const shape = cols === undefined ? [rows] : [rows, cols];
    return Tensor.copyOf(normal(rows, cols ?? 1, seed++, cols === undefined ? 1 : 0.4), shape);
  };
  const tapes = graph.blocks.map(() => createBlockTape(config, tokens));
  const weights = graph.blocks.map((block) => new Map(block.tensors.map((name) => [name, random(name)])));
  const head = { norm: random(graph.finalNorm), lmHead: random(graph.lmHead) };
  const zeros = (...shape: number[]) => Tensor.zeros('f32', shape);
  const [normed, dhidden, all] = [zeros(tokens, 24), zeros(tokens, 24), zeros(tokens, 50)];
  const target = Tensor.copyOf(Int32Array.from({ length: tokens }, (_, t) => (t === tokens - 1 ? -1 : 5 * t)));
  const losses = Tensor.zeros('f64', [tokens]);
  tapes[0]!.input.write(normal(tokens, 24, 90));

  using forward = new Program();
  const record = (program: Program) => {
    for (const [i, block] of graph.blocks.entries()) {
      if (i > 0) program.cacheAppend(tapes[i - 1]!.hidden, tapes[i]!.input);
      recordBlockForward(program, { config, block, weights: weights[i]!, tape: tapes[i]! });
    }
  };
  record(forward);
  const last = tapes[1]!;
  recordHead(forward, config, head, { hidden: last.hidden, normed, logits: all, products: {} });
  forward.crossEntropy(all, target, losses, Tensor.zeros('i32', [tokens]));

  // Logits of four tokens at a time: the last piece is ragged.
  using backward = new Program();
  record(backward);
  const step = { hidden: last.hidden, target, logits: zeros(4, 50), normed, dhidden };
  recordHeadBackward(backward, config, head, step);
  const gradients = new Map<string, Tensor>();
  const seen: string[] = [];
  for (const i of [1, 0]) {
    const [block, tape] = [graph.blocks[i]!, tapes[i]!];
    const own = new Map(block.linears.map(({ name }) => [name, zeros(...graph.shapes.get(name)!)]));
    for (const [name, gradient] of own) gradients.set(name, gradient);
    backward.cacheAppend(i === 1 ? dhidden : tapes[1]!.dhidden, tape.dhidden);
    const options = { toInput: true, onGradient: (name: string) => seen.push(name) };
    recordBlockBackward(backward, { config, block, weights: weights[i]!, tape }, own, options);
  }
  backward.run();
  expect(seen.sort()).toEqual([...gradients.keys()].sort());

  const loss = () => {
    forward.run();
    return (losses.read() as Float64Array).reduce((sum, one) => sum + one, 0);
  };
  for (const [name, gradient] of gradients) {
    const weight = weights.find((one) => one.has(name))!.get(name)!;
    const start = weight.read() as Float32Array;
    const slope = gradient.read() as Float32Array;
    const length = Math.hypot(...slope);
    const lossAt = (by: number) => {
      weight.write(start.map((w, i) => w + (by * slope[i]!) / length));
      const value = loss();
      weight.write(start);
      return value;
    };
    const by = 2 ** -8;
    expect((lossAt(by) - lossAt(-by)) / (2 * by) / length, name).toBeCloseTo(1, 2);
  }
});
