import type { LlamaConfig } from './config.js';
import { type BlockGraph, type LinearNode, type ModelGraph, rolesOf } from './graph.js';

/**
 * What the elements along an axis of a tensor belong to: the residual stream, hiddenSize wide; the heads of values, headDim
 * wide each, which attention mixes over tokens and not among each other; or something that only its own layers know.
 */
export type Space = 'residual' | 'valueHeads' | 'own';

/** What a stored tensor reads and writes. */
export type TensorFlow =
  /** Scales the residual stream channel by channel, normed before and read by linear layers behind it. */
  | { kind: 'norm' }
  /** [rows, columns]: a linear layer's columns read, its rows write. `norm` scales what the columns read, or is null. */
  | { kind: 'matrix'; rows: Space; columns: Space; norm: string | null }
  /** [rows] */
  | { kind: 'bias'; rows: Space };

/** What feeds what: the flow of every tensor of a model by name. Tied embeddings are those of the embedding. */
export function modelFlow(graph: ModelGraph): ReadonlyMap<string, TensorFlow> {
  const flow = new Map<string, TensorFlow>();
  for (const block of graph.blocks) {
    const { q, k, v, o, gate, up, down } = rolesOf(block);
    const linear = (node: LinearNode, rows: Space, columns: Space, norm: string | null) => {
      flow.set(node.name, { kind: 'matrix', rows, columns, norm });
      if (node.bias) flow.set(node.bias, { kind: 'bias', rows });
    };
    for (const norm of [block.attentionNorm, block.feedForwardNorm]) flow.set(norm, { kind: 'norm' });
    for (const node of [q, k]) linear(node, 'own', 'residual', block.attentionNorm);
    linear(v, 'valueHeads', 'residual', block.attentionNorm);
    linear(o, 'residual', 'valueHeads', null);
    for (const node of [gate, up]) linear(node, 'own', 'residual', block.feedForwardNorm);
    linear(down, 'residual', 'own', null);
  }
  flow.set(graph.finalNorm, { kind: 'norm' });
  flow.set(graph.lmHead, { kind: 'matrix', rows: 'own', columns: 'residual', norm: graph.finalNorm });
  flow.set(graph.embedding, { kind: 'matrix', rows: 'own', columns: 'residual', norm: null });
  return flow;
}

/** The parts of a block, each from the activation that a tap names to what the part hands on. */
export type BlockPart = 'attention' | 'attentionOutput' | 'feedForward' | 'feedForwardOutput';

/**
 * Linear layers that read one activation whose channels can be scaled where it is made and unscaled where it is read, and the
 * network computes the same.
 */
export interface ScalingGroup {
  /** All layers that read the activation, which goes by the tap id of their input. */
  readonly linears: readonly LinearNode[];
  /** What makes it: a norm, channel by channel of its weight, or a linear layer, row by row of weight and bias. */
  readonly producer: { readonly norm: string } | { readonly linear: LinearNode };
  /** The smallest part of the block that begins with the activation and ends in the residual stream. */
  readonly part: BlockPart;
  /** Layers that make scores, where a clipped weight shows in every token's attention, and not only in a sum. */
  readonly scores: readonly LinearNode[];
}

/**
 * The scaling groups of a block in the order of the data flow. Where queries share heads of values, a row of v feeds several
 * columns of o, which then could not be scaled one by one: there is no such group.
 */
export function scalingGroups({ heads, kvHeads }: LlamaConfig, block: BlockGraph): ScalingGroup[] {
  const { q, k, v, o, gate, up, down } = rolesOf(block);
  const values: ScalingGroup = { linears: [o], producer: { linear: v }, part: 'attentionOutput', scores: [] };
  return [
    { linears: [q, k, v], producer: { norm: block.attentionNorm }, part: 'attention', scores: [q, k] },
    ...(heads === kvHeads ? [values] : []),
    { linears: [gate, up], producer: { norm: block.feedForwardNorm }, part: 'feedForward', scores: [] },
    { linears: [down], producer: { linear: up }, part: 'feedForwardOutput', scores: [] },
  ];
}
