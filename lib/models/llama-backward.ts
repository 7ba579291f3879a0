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
export function recordBlockLoss(program: Program, backward: BlockBackward): void {
  recordBlockForward(program, backward);
  const { hidden, target, loss, dhidden } = backward.tape;
  program.squaredError(hidden, target, loss, dhidden);
}

/** Records the block's forward pass from `tape.input` to `tape.hidden`, at position 0, with what the way back needs. */
export function recordBlockForward(program: Program, { config, block, weights, tape }: BlockBackward): void {
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
}

/**
 * Records the way back from `tape.dhidden`, the derivative by the block's output, after the forward pass has run: the
 * derivatives by the block's tensors.
 *
 * @param gradients where they go, f32 and shaped as the tensors, by name: of those linear layers and norms that are wanted.
 */
export function recordBlockBackward(
  program: Program,
  backward: BlockBackward,
  gradients: ReadonlyMap<string, Tensor>,
  { toInput = false, onGradient }: BackwardOptions = {},
): void {
  recordFeedForwardBackward(program, backward, { gradients, onGradient });
  recordAttentionBackward(program, backward, { gradients, onGradient }, toInput);
}

export interface BackwardOptions {
  /** `tape.dhidden` becomes the derivative by the block's input; else the way back ends at the first norm's weight. */
  toInput?: boolean | undefined;
  /** Called where the derivative by a linear layer's weight has been recorded: what reads it before the next may share its memory. */
  onGradient?: ((name: string) => void) | undefined;
}

/** Where derivatives by weights go. */
interface Gradients {
  gradients: ReadonlyMap<string, Tensor>;
  onGradient: BackwardOptions['onGradient'];
}

/**
 * Records the output layer and the way back from the summed cross-entropy of `target` to the block stack's output.
 *
 * @param head f32
 * @param step `hidden` f32 [n, hiddenSize] is the last block's output; `target` i32 [n], negative where no token is asked for;
 *   `logits` f32 [r, vocabulary]: r rows are worked on at a time. `dhidden` f32 [n, hiddenSize] is the result, `normed` scratch.
 */
export function recordHeadBackward(
  program: Program,
  { normEpsilon }: LlamaConfig,
  { norm, lmHead }: { norm: Tensor; lmHead: Tensor },
  { hidden, target, logits, normed, dhidden }: Record<'hidden' | 'target' | 'logits' | 'normed' | 'dhidden', Tensor>,
): void {
  program.rmsNorm(hidden, norm, normEpsilon, normed);
  const [[n = 0], [most = 1]] = [hidden.shape, logits.shape];
  for (let begin = 0; begin < n; begin += most) {
    const end = Math.min(n, begin + most);
    using x = normed.rows(begin, end);
    using wanted = target.rows(begin, end);
    using scores = logits.rows(0, end - begin);
    using dx = dhidden.rows(begin, end);
    program.linear(lmHead, x, scores, {});
    program.crossEntropyBackward(scores, wanted, scores).linearBackwardInput(scores, lmHead, dx);
  }
  program.rmsNormBackwardInput(hidden, norm, normEpsilon, dhidden, dhidden);
}

/** From the derivative by the block's output to that by the residual stream after attention, both `tape.dhidden`. */
function recordFeedForwardBackward(
  program: Program,
  { config, block, weights, tape }: BlockBackward,
  { gradients, onGradient }: Gradients,
): void {
  const [gateProj, upProj, downProj] = block.linears.slice(4) as [LinearNode, LinearNode, LinearNode];
  const { feedForwardNormed: normed, gate, up, gated, residual, dhidden, dnormed, dgate, dup, added } = tape;
  const layer = (node: LinearNode, dy: Tensor, x: Tensor, dx: Tensor) =>
    recordLinearBackward(program, node, { weights, gradients, onGradient }, { dy, x, dx });
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

/** From the derivative by the residual stream after attention to that by the block's input, both `tape.dhidden`. */
function recordAttentionBackward(
  program: Program,
  { config, block, weights, tape }: BlockBackward,
  { gradients, onGradient }: Gradients,
  toInput: boolean,
): void {
  const [qProj, kProj, vProj, oProj] = block.linears as [LinearNode, LinearNode, LinearNode, LinearNode];
  const { heads, kvHeads, headDim, slidingWindow: window } = config;
  const { input, normed, q, k, v, attended, added, dhidden, dnormed, dattended, dq, dk, dv, cosSin } = tape;
  const through = { weights, gradients, onGradient };
  recordLinearBackward(program, oProj, through, { dy: dhidden, x: attended, dx: dattended });
  const inputs = { q, keys: k, values: v };
  program.attentionBackward(inputs, { heads, kvHeads, headDim, window }, dattended, { dq, dkeys: dk, dvalues: dv });
  program.ropeBackward(dq, cosSin, headDim).ropeBackward(dk, cosSin, headDim);
  const dweight = gradients.get(block.attentionNorm);
  const wanted = toInput || dweight !== undefined;
  const dx = (tensor: Tensor) => (wanted ? tensor : null);
  recordLinearBackward(program, qProj, through, { dy: dq, x: normed, dx: dx(dnormed) });
  for (const [node, dy] of [[kProj, dk] as const, [vProj, dv] as const]) {
    recordLinearBackward(program, node, through, { dy, x: normed, dx: dx(added) });
    if (wanted) program.add(added, dnormed);
  }
  if (dweight) program.rmsNormBackwardWeight(input, config.normEpsilon, dnormed, dweight);
  if (!toInput) return;
  program.rmsNormBackwardInput(input, denseWeight(weights, block.attentionNorm), config.normEpsilon, dnormed, dnormed);
  program.add(dnormed, dhidden);
}

/** The derivatives by a linear layer's weight and, unless `dx` is null, its input. A bias changes neither. */
function recordLinearBackward(
  program: Program,
  { name }: LinearNode,
  { weights, gradients, onGradient }: Gradients & { weights: ReadonlyMap<string, Weight> },
  { dy, x, dx }: { dy: Tensor; x: Tensor; dx: Tensor | null },
): void {
  const dweight = gradients.get(name);
  if (dweight) program.linearBackwardWeight(dy, x, dweight);
  if (dweight) onGradient?.(name);
  if (dx) program.linearBackwardInput(dy, denseWeight(weights, name), dx);
}
