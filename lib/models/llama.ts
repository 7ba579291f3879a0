import { lutraError } from '../errors.js';
import type { ProductOptions, Program, Weight } from '../ops/index.js';
import { Tensor } from '../tensor/index.js';
import type { LlamaConfig } from './config.js';
import type { BlockPart } from './flow.js';
import { type BlockGraph, type LinearNode, rolesOf } from './graph.js';

/** Keys and values of one block: f32 [capacity, kvHeads * headDim] each, one row a position. */
export interface BlockCache {
  readonly keys: Tensor;
  readonly values: Tensor;
}

/** Called where the input activation of a tap id has been recorded: f32 [n, inFeatures], overwritten later in the step. */
export type Tap = (input: string, x: Tensor, program: Program) => void;

/** What attention works on, before it is overwritten later in the step; f32 with n rows each. */
export interface AttentionInputs {
  /** [n, hiddenSize]: what the query, key and value projections read. */
  readonly x: Tensor;
  /** [n, heads * headDim], rotated. */
  readonly q: Tensor;
  /** [n, kvHeads * headDim], rotated. */
  readonly keys: Tensor;
}

/** Called where the rotated queries and keys of a block have been recorded. */
export type AttentionTap = (inputs: AttentionInputs, program: Program) => void;

/** What one block works on in one step of n tokens. */
export interface BlockStep {
  /** f32 [n, hiddenSize]: the residual stream, updated in place. */
  readonly hidden: Tensor;
  readonly scratch: BlockActivations;
  readonly cache: BlockCache;
  /** f32 [positions, headDim] of `ropeTable`. */
  readonly cosSin: Tensor;
  /** Of the block's linear layers. */
  readonly products: ProductOptions;
  readonly tap?: Tap | undefined;
  readonly attentionTap?: AttentionTap | undefined;
}

/** What a block makes of n tokens, f32 with n rows each, in the order of the data flow. */
export interface BlockActivations {
  readonly normed: Tensor;
  readonly q: Tensor;
  readonly k: Tensor;
  readonly v: Tensor;
  readonly attended: Tensor;
  /** What attention, and later the feed-forward, adds to the residual stream. */
  readonly added: Tensor;
  readonly feedForwardNormed: Tensor;
  readonly gate: Tensor;
  readonly up: Tensor;
  /** silu(gate) · up */
  readonly gated: Tensor;
}

/** Activations inside a block, reused from block to block and, where one is not read again, inside it. */
export class BlockScratch implements BlockActivations {
  readonly normed: Tensor;
  readonly q: Tensor;
  readonly k: Tensor;
  readonly v: Tensor;
  readonly attended: Tensor;
  readonly gate: Tensor;
  readonly up: Tensor;

  /** @param owner where given, the buffers are the first rows of the owner's, on the same memory. */
  constructor(config: LlamaConfig, rows: number, owner?: BlockScratch) {
    const { hiddenSize, intermediateSize, heads, kvHeads, headDim } = config;
    const buffer = (width: number, owned?: Tensor) => owned?.rows(0, rows) ?? Tensor.zeros('f32', [rows, width]);
    this.normed = buffer(hiddenSize, owner?.normed);
    this.q = buffer(heads * headDim, owner?.q);
    this.k = buffer(kvHeads * headDim, owner?.k);
    this.v = buffer(kvHeads * headDim, owner?.v);
    this.attended = buffer(heads * headDim, owner?.attended);
    this.gate = buffer(intermediateSize, owner?.gate);
    this.up = buffer(intermediateSize, owner?.up);
  }

  get added(): Tensor {
    return this.normed;
  }
  get feedForwardNormed(): Tensor {
    return this.normed;
  }
  get gated(): Tensor {
    return this.gate;
  }

  dispose(): void {
    for (const tensor of [this.normed, this.q, this.k, this.v, this.attended, this.gate, this.up]) tensor.dispose();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }
}

/** A cache for one block. */
export function createBlockCache(config: LlamaConfig, capacity: number): BlockCache {
  const shape = [capacity, config.kvHeads * config.headDim];
  return { keys: Tensor.zeros('f32', shape), values: Tensor.zeros('f32', shape) };
}

/** hidden[n, hiddenSize] = table[ids[n]]. */
export function recordEmbedding(program: Program, table: Tensor, ids: Tensor, hidden: Tensor): void {
  program.embedding(table, ids, hidden);
}

/**
 * Records one decoder block on `step.hidden`: pre-norm attention with rotary embeddings and grouped keys and values, then
 * the gated feed-forward (Llama, arXiv 2302.13971; Mistral, arXiv 2310.06825). The position is the program's step scalar.
 *
 * @param weights the tensors that `block.tensors` names; biases f32.
 */
export function recordBlock(
  program: Program,
  config: LlamaConfig,
  block: BlockGraph,
  weights: ReadonlyMap<string, Weight>,
  step: BlockStep,
): void {
  recordAttention(program, config, block, weights, step);
  recordFeedForward(program, config, block, weights, step);
}

function recordAttention(
  program: Program,
  config: LlamaConfig,
  block: BlockGraph,
  weights: ReadonlyMap<string, Weight>,
  step: BlockStep,
): void {
  const { hidden, scratch, tap } = step;
  const { q, o } = rolesOf(block);
  const { normed, added } = scratch;
  program.rmsNorm(hidden, denseWeight(weights, block.attentionNorm), config.normEpsilon, normed);
  tap?.(q.input, normed, program);
  recordMixing(program, config, block, weights, { ...step, x: normed });
  tap?.(o.input, scratch.attended, program);
  recordLinears(program, [o], weights, scratch.attended, [added], step.products);
  program.add(added, hidden);
}

/** Records no more of a block than `attentionTap` sees. Leaves `step.hidden` as it is. */
export function recordQueriesAndKeys(
  program: Program,
  config: LlamaConfig,
  block: BlockGraph,
  weights: ReadonlyMap<string, Weight>,
  { hidden, scratch: { normed, q, k }, cosSin, products, attentionTap }: BlockStep,
): void {
  const { headDim, normEpsilon } = config;
  const roles = rolesOf(block);
  program.rmsNorm(hidden, denseWeight(weights, block.attentionNorm), normEpsilon, normed);
  recordLinears(program, [roles.q, roles.k], weights, normed, [q, k], products);
  program.rope(q, cosSin, headDim).rope(k, cosSin, headDim);
  attentionTap?.({ x: normed, q, keys: k }, program);
}

function recordFeedForward(
  program: Program,
  config: LlamaConfig,
  block: BlockGraph,
  weights: ReadonlyMap<string, Weight>,
  step: BlockStep,
): void {
  const { hidden, scratch, tap, products } = step;
  const { gate, down } = rolesOf(block);
  const { feedForwardNormed: normed, gated, added } = scratch;
  program.rmsNorm(hidden, denseWeight(weights, block.feedForwardNorm), config.normEpsilon, normed);
  tap?.(gate.input, normed, program);
  recordGating(program, block, weights, { scratch, products, x: normed });
  tap?.(down.input, gated, program);
  recordLinears(program, [down], weights, gated, [added], products);
  program.add(added, hidden);
}

/** From the attention's input x [n, hiddenSize] to what its output layer reads, in `scratch.attended`. */
function recordMixing(
  program: Program,
  config: LlamaConfig,
  block: BlockGraph,
  weights: ReadonlyMap<string, Weight>,
  step: Pick<BlockStep, 'scratch' | 'cache' | 'cosSin' | 'products' | 'attentionTap'> & {
    x: Tensor;
    sequenceLength?: number;
  },
): void {
  const { x, scratch, cache, cosSin, products } = step;
  const { heads, kvHeads, headDim, slidingWindow: window } = config;
  const roles = rolesOf(block);
  recordLinears(program, [roles.q, roles.k, roles.v], weights, x, [scratch.q, scratch.k, scratch.v], products);
  const [rows = 0] = x.shape;
  const length = step.sequenceLength ?? rows;
  const views: Tensor[] = [];
  for (let begin = 0; begin < rows; begin += length) {
    const sequence = (whole: Tensor) => {
      if (length >= rows) return whole;
      views.push(whole.rows(begin, Math.min(rows, begin + length)));
      return views.at(-1)!;
    };
    const [q, k, v, attended] = [scratch.q, scratch.k, scratch.v, scratch.attended].map(sequence) as Sequence;
    program.rope(q, cosSin, headDim).rope(k, cosSin, headDim);
    step.attentionTap?.({ x, q, keys: k }, program);
    program.cacheAppend(k, cache.keys).cacheAppend(v, cache.values);
    program.attention(q, cache.keys, cache.values, { heads, kvHeads, headDim, window }, attended);
  }
  // The program keeps their memory.
  for (const view of views) view.dispose();
}

/** One sequence's rows of q, k, v and what attention makes of them. */
type Sequence = [Tensor, Tensor, Tensor, Tensor];

/** From the feed-forward's input x [n, hiddenSize] to what its output layer reads, in `scratch.gated`. */
function recordGating(
  program: Program,
  block: BlockGraph,
  weights: ReadonlyMap<string, Weight>,
  { x, scratch, products }: Pick<BlockStep, 'scratch' | 'products'> & { x: Tensor },
): void {
  const { gate, up } = rolesOf(block);
  recordLinears(program, [gate, up], weights, x, [scratch.gate, scratch.up], products);
  program.swiglu(scratch.gate, scratch.up, scratch.gated);
}

/** What one part of a block works on: sequences behind each other, each from the step's position on. */
export interface PartStep extends Pick<BlockStep, 'scratch' | 'cache' | 'cosSin' | 'products'> {
  /** f32 [n, width]: the activation that the part begins with. */
  readonly x: Tensor;
  /** f32 [n, hiddenSize]: what it adds to the residual stream. */
  readonly y: Tensor;
  readonly sequenceLength: number;
}

/** Records one part of a block, from the activation that it begins with to what it adds to the residual stream. */
export function recordPart(
  program: Program,
  config: LlamaConfig,
  block: BlockGraph,
  part: BlockPart,
  weights: ReadonlyMap<string, Weight>,
  step: PartStep,
): void {
  const { o, down } = rolesOf(block);
  const { x, y, scratch, products } = step;
  if (part === 'attention') recordMixing(program, config, block, weights, step);
  if (part === 'feedForward') recordGating(program, block, weights, step);
  const ends = {
    attention: [o, scratch.attended],
    attentionOutput: [o, x],
    feedForward: [down, scratch.gated],
    feedForwardOutput: [down, x],
  } as const;
  const [last, read] = ends[part];
  recordLinears(program, [last], weights, read, [y], products);
}

/** logits[n, vocabulary] of `hidden` [n, hiddenSize]: final norm into `normed` (which may be `hidden`), then the output layer. */
export function recordHead(
  program: Program,
  config: LlamaConfig,
  head: { norm: Tensor; lmHead: Weight },
  step: { hidden: Tensor; normed: Tensor; logits: Tensor; products: ProductOptions },
): void {
  program.rmsNorm(step.hidden, head.norm, config.normEpsilon, step.normed);
  program.linear(head.lmHead, step.normed, step.logits, step.products);
}

/** Linear layers that share their input. */
function recordLinears(
  program: Program,
  nodes: readonly LinearNode[],
  weights: ReadonlyMap<string, Weight>,
  x: Tensor,
  results: readonly Tensor[],
  products: ProductOptions,
): void {
  const matrices = nodes.map(({ name }) => weightOf(weights, name));
  program.linears(matrices, x, results, products);
  for (const [i, { bias }] of nodes.entries()) if (bias) program.addBias(results[i]!, denseWeight(weights, bias));
}

function weightOf(weights: ReadonlyMap<string, Weight>, name: string): Weight {
  const weight = weights.get(name);
  if (!weight) throw lutraError('LUTRA_E_NOT_FOUND', { message: 'the weights lack a tensor', where: name });
  return weight;
}

/** A norm or a bias: never packed. @throws `LUTRA_E_DTYPE` */
export function denseWeight(weights: ReadonlyMap<string, Weight>, name: string): Tensor {
  const weight = weightOf(weights, name);
  if ('layout' in weight)
    throw lutraError('LUTRA_E_DTYPE', { message: 'this tensor cannot be quantized', where: name });
  return weight;
}
