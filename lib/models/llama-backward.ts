import type { Program, Weight } from '../ops/index.js';
import { Tensor } from '../tensor/index.js';
import type { LlamaConfig } from './config.js';
import type { BlockGraph, LinearNode } from './graph.js';
import { createBlockCache, denseWeight, recordBlock } from './llama.js';
import { ropeTable } from './rope.js';

/**
 * Everything that a block makes of one sequence, kept for the way back, and what the way back works on: f32 with a row a
 * token, 9 tensors as wide as the residual stream, 4 as all queries, 6 as all keys and 5 as the feed-forward.
 */
export function createBlockTape(config: LlamaConfig, rows: number) {
  const { hiddenSize, intermediateSize, heads, kvHeads, headDim } = config;
  const made: Tensor[] = [];
  const own = (tensor: Tensor) => {
    made.push(tensor);
    return tensor;
  };
  const buffer = (width: number) => own(Tensor.zeros('f32', [rows, width]));
  const [hidden, queries, keys] = [hiddenSize, heads * headDim, kvHeads * headDim];
  const cache = createBlockCache(config, rows);
  made.push(cache.keys, cache.values);
  return {
    /** What enters the block, and what it should make of that; the caller writes them before a run. */
    input: buffer(hidden),
    target: buffer(hidden),
    /** The block's output. */
    hidden: buffer(hidden),
    normed: buffer(hidden),
    q: buffer(queries),
    k: buffer(keys),
    v: buffer(keys),
    attended: buffer(queries),
    added: buffer(hidden),
    /** The residual stream between attention and feed-forward. */
    residual: buffer(hidden),
    feedForwardNormed: buffer(hidden),
    gate: buffer(intermediateSize),
    up: buffer(intermediateSize),
    gated: buffer(intermediateSize),
    /** f64 [rows]: the mean over channels of (hidden - target)². */
    loss: own(Tensor.zeros('f64', [rows])),
    /** Derivatives of the loss's mean over tokens by what the names say; `added` is free again and takes summands. */
    dhidden: buffer(hidden),
    dnormed: buffer(hidden),
    dattended: buffer(queries),
    dq: buffer(queries),
    dk: buffer(keys),
    dv: buffer(keys),
    dgate: buffer(intermediateSize),
    dup: buffer(intermediateSize),
    cache,
    cosSin: own(ropeTable(config, rows)),
    dispose(): void {
      for (const tensor of made) tensor.dispose();
    },
  };
}

export type BlockTape = ReturnType<typeof createBlockTape>;

/** What a block's way back needs. Weights are f32. */
export interface BlockBackward {
  config: LlamaConfig;
  block: BlockGraph;
  weights: ReadonlyMap<string, Weight>;
  tape: BlockTape;
}

/** Records the block's forward pass from `tape.input`, at position 0, and the loss of what it gives. */
export function recordBlockLoss(program: Program, { config, block, weights, tape }: BlockBackward): void {
  // At position 0 this copies all rows.
  program.cacheAppend(tape.input, tape.hidden);
  const feedForwardInput = block.linears[4]?.input;
  recordBlock(program, config, block, weights, {
    ...tape,
    scratch: tape,
    products: {},
    tap: (input) => {
      if (input === feedForwardInput) program.cacheAppend(tape.hidden, tape.residual);
    },
  });
  program.squaredError(tape.hidden, tape.target, tape.loss, tape.dhidden);
}

/**
 * Records the reverse of `recordBlockLoss`, which must have run: the derivatives of the mean loss by the block's tensors.
 *
 * @param gradients where they go, f32 and shaped as the tensors, by name: of those linear layers and norms that are wanted.
 */
export function recordBlockBackward(
  program: Program,
  backward: BlockBackward,
  gradients: ReadonlyMap<string, Tensor>,
): void {
  recordFeedForwardBackward(program, backward, gradients);
  recordAttentionBackward(program, backward, gradients);
}

/** From the derivative by the block's output to that by the residual stream after attention, both `tape.dhidden`. */
function recordFeedForwardBackward(
  program: Program,
  { config, block, weights, tape }: BlockBackward,
  gradients: ReadonlyMap<string, Tensor>,
): void {
  const [gateProj, upProj, downProj] = block.linears.slice(4) as [LinearNode, LinearNode, LinearNode];
  const { feedForwardNormed: normed, gate, up, gated, residual, dhidden, dnormed, dgate, dup, added } = tape;
  const layer = (node: LinearNode, dy: Tensor, x: Tensor, dx: Tensor) =>
    recordLinearBackward(program, node, { weights, gradients }, { dy, x, dx });
  layer(downProj, dhidden, gated, dgate);
  program.swigluBackward(gate, up, dgate, dgate, dup);
  layer(gateProj, dgate, normed, dnormed);
  layer(upProj, dup, normed, added);
  program.add(added, dnormed);
  const norm = block.feedForwardNorm;
  const dweight = gradients.get(norm);
  if (dweight) program.rmsNormBackwardWeight(residual, config.normEpsilon, dnormed, dweight);
  program.rmsNormBackwardInput(residual, denseWeight(weights, norm), config.normEpsilon, dnormed, dnormed);
  program.add(dnormed, dhidden);
}

/** The block's input is given: the way back ends at the first norm's weight. */
function recordAttentionBackward(
  program: Program,
  { config, block, weights, tape }: BlockBackward,
  gradients: ReadonlyMap<string, Tensor>,
): void {
  const [qProj, kProj, vProj, oProj] = block.linears as [LinearNode, LinearNode, LinearNode, LinearNode];
  const { heads, kvHeads, headDim, slidingWindow: window } = config;
  const { input, normed, q, k, v, attended, added, dhidden, dnormed, dattended, dq, dk, dv, cosSin } = tape;
  const through = { weights, gradients };
  recordLinearBackward(program, oProj, through, { dy: dhidden, x: attended, dx: dattended });
  const inputs = { q, keys: k, values: v };
  program.attentionBackward(inputs, { heads, kvHeads, headDim, window }, dattended, { dq, dkeys: dk, dvalues: dv });
  program.ropeBackward(dq, cosSin, headDim).ropeBackward(dk, cosSin, headDim);
  const dweight = gradients.get(block.attentionNorm);
  const dx = (tensor: Tensor) => (dweight ? tensor : null);
  recordLinearBackward(program, qProj, through, { dy: dq, x: normed, dx: dx(dnormed) });
  for (const [node, dy] of [[kProj, dk] as const, [vProj, dv] as const]) {
    recordLinearBackward(program, node, through, { dy, x: normed, dx: dx(added) });
    if (dweight) program.add(added, dnormed);
  }
  if (dweight) program.rmsNormBackwardWeight(input, config.normEpsilon, dnormed, dweight);
}

/** The derivatives by a linear layer's weight and, unless `dx` is null, its input. A bias changes neither. */
function recordLinearBackward(
  program: Program,
  { name }: LinearNode,
  { weights, gradients }: { weights: ReadonlyMap<string, Weight>; gradients: ReadonlyMap<string, Tensor> },
  { dy, x, dx }: { dy: Tensor; x: Tensor; dx: Tensor | null },
): void {
  const dweight = gradients.get(name);
  if (dweight) program.linearBackwardWeight(dy, x, dweight);
  if (dx) program.linearBackwardInput(dy, denseWeight(weights, name), dx);
}
