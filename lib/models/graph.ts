import { lutraError } from '../errors.js';
import type { LlamaConfig } from './config.js';
import { extraTensors } from './extra-tensors.js';

/** One linear layer of a block, y = x · Wᵀ + bias. */
export interface LinearNode {
  /** Name of its weight [outFeatures, inFeatures], for example `model.layers.0.self_attn.q_proj.weight`. */
  readonly name: string;
  readonly outFeatures: number;
  readonly inFeatures: number;
  /** Name of its bias [outFeatures], or null. */
  readonly bias: string | null;
  /** Tap id of its input activation; linears that share their input share the id. */
  readonly input: string;
}

/** One decoder block: attention and feed-forward, each behind its norm. */
export interface BlockGraph {
  readonly index: number;
  readonly prefix: string;
  /** In the order of the data flow: q, k, v, o, gate, up, down. */
  readonly linears: readonly LinearNode[];
  readonly attentionNorm: string;
  readonly feedForwardNorm: string;
  /** Every tensor that the block loads: weights, biases and norms. */
  readonly tensors: readonly string[];
}

/** A model as named tensors and the linear layers that they form. */
export interface ModelGraph {
  readonly config: LlamaConfig;
  readonly blocks: readonly BlockGraph[];
  readonly embedding: string;
  readonly finalNorm: string;
  /** The same name as `embedding` where the two share one stored tensor. */
  readonly lmHead: string;
  readonly tied: boolean;
  /** Expected shape by name, of every tensor that the model loads. */
  readonly shapes: ReadonlyMap<string, readonly number[]>;
}

const embeddingName = 'model.embed_tokens.weight';
const lmHeadName = 'lm_head.weight';
const finalNormName = 'model.norm.weight';

/**
 * The graph of a configuration. Tied embeddings go by the name under which they are stored.
 *
 * @param has whether the checkpoint holds a tensor; without it, tied weights are `model.embed_tokens.weight`.
 */
export function buildGraph(config: LlamaConfig, has: (name: string) => boolean = () => true): ModelGraph {
  const blocks = Array.from({ length: config.layers }, (_, index) => buildBlock(config, index));
  const tied = config.tiedEmbeddings;
  const embedding = tied && !has(embeddingName) && has(lmHeadName) ? lmHeadName : embeddingName;
  const lmHead = tied ? embedding : lmHeadName;
  const shapes = new Map<string, readonly number[]>();
  shapes.set(embedding, [config.vocabularySize, config.hiddenSize]);
  for (const block of blocks) {
    shapes.set(block.attentionNorm, [config.hiddenSize]);
    shapes.set(block.feedForwardNorm, [config.hiddenSize]);
    for (const { name, outFeatures, inFeatures, bias } of block.linears) {
      shapes.set(name, [outFeatures, inFeatures]);
      if (bias) shapes.set(bias, [outFeatures]);
    }
  }
  shapes.set(finalNormName, [config.hiddenSize]);
  shapes.set(lmHead, [config.vocabularySize, config.hiddenSize]);
  return { config, blocks, embedding, finalNorm: finalNormName, lmHead, tied, shapes };
}

/** The same model with an output layer of its own: `lm_head.weight` beside `model.embed_tokens.weight`. */
export function untied(graph: ModelGraph): ModelGraph {
  return graph.tied ? buildGraph({ ...graph.config, tiedEmbeddings: false }) : graph;
}

/** A block's linear layers by what they are for. */
export function rolesOf({ linears }: BlockGraph): Record<'q' | 'k' | 'v' | 'o' | 'gate' | 'up' | 'down', LinearNode> {
  const [q, k, v, o, gate, up, down] = linears as [
    LinearNode,
    LinearNode,
    LinearNode,
    LinearNode,
    LinearNode,
    LinearNode,
    LinearNode,
  ];
  return { q, k, v, o, gate, up, down };
}

function buildBlock(config: LlamaConfig, index: number): BlockGraph {
  const { hiddenSize, intermediateSize, heads, kvHeads, headDim } = config;
  const prefix = `model.layers.${index}`;
  const linear = (path: string, out: number, into: number, hasBias: boolean, input: string): LinearNode => ({
    name: `${prefix}.${path}.weight`,
    outFeatures: out,
    inFeatures: into,
    bias: hasBias ? `${prefix}.${path}.bias` : null,
    input: `${prefix}.${input}`,
  });
  const { attentionBias, mlpBias } = config;
  const linears = [
    linear('self_attn.q_proj', heads * headDim, hiddenSize, attentionBias, 'self_attn.input'),
    linear('self_attn.k_proj', kvHeads * headDim, hiddenSize, attentionBias, 'self_attn.input'),
    linear('self_attn.v_proj', kvHeads * headDim, hiddenSize, attentionBias, 'self_attn.input'),
    linear('self_attn.o_proj', hiddenSize, heads * headDim, attentionBias, 'self_attn.o_proj.input'),
    linear('mlp.gate_proj', intermediateSize, hiddenSize, mlpBias, 'mlp.input'),
    linear('mlp.up_proj', intermediateSize, hiddenSize, mlpBias, 'mlp.input'),
    linear('mlp.down_proj', hiddenSize, intermediateSize, mlpBias, 'mlp.down_proj.input'),
  ];
  const attentionNorm = `${prefix}.input_layernorm.weight`;
  const feedForwardNorm = `${prefix}.post_attention_layernorm.weight`;
  const named = linears.flatMap(({ name, bias }) => (bias ? [name, bias] : [name]));
  return {
    index,
    prefix,
    linears,
    attentionNorm,
    feedForwardNorm,
    tensors: [attentionNorm, ...named, feedForwardNorm],
  };
}

/**
 * Checks that a checkpoint holds what the graph loads, and no layer or bias that the graph would leave out.
 *
 * @param tensors the checkpoint's tensors by name.
 * @throws `LUTRA_E_NOT_FOUND` for a missing tensor, `LUTRA_E_SHAPE` for layers that `num_hidden_layers` does not count,
 *   `LUTRA_E_UNSUPPORTED_MODEL` for a bias that config.json does not announce, and what `extraTensors` throws.
 * @returns `extraTensors`
 */
export function checkNames(graph: ModelGraph, tensors: ReadonlyMap<string, unknown>, where: string): string[] {
  for (const name of graph.shapes.keys())
    if (!tensors.has(name))
      throw lutraError('LUTRA_E_NOT_FOUND', {
        message: `the checkpoint has no tensor ${name}`,
        where,
        hint:
          name === lmHeadName
            ? 'If the output layer shares the embedding, config.json must say "tie_word_embeddings": true.'
            : 'config.json and the checkpoint do not belong together, or a shard is missing.',
      });
  checkLayerCount(graph, tensors, where);
  for (const { linears } of graph.blocks)
    for (const { name, bias } of linears) {
      const unannounced = name.replace(/\.weight$/, '.bias');
      if (bias === null && tensors.has(unannounced))
        throw lutraError('LUTRA_E_UNSUPPORTED_MODEL', {
          message: `the checkpoint holds a bias, ${unannounced}, that config.json does not announce`,
          where,
          expected: 'attention_bias or mlp_bias',
        });
    }
  return extraTensors(graph, tensors, where);
}

function checkLayerCount({ blocks }: ModelGraph, tensors: ReadonlyMap<string, unknown>, where: string): void {
  let held = 0;
  for (const name of tensors.keys()) held = Math.max(held, Number(/^model\.layers\.(\d+)\./.exec(name)?.[1] ?? -1) + 1);
  if (held > blocks.length)
    throw lutraError('LUTRA_E_SHAPE', {
      message: 'the checkpoint holds more layers than config.json counts',
      where: `${where}: num_hidden_layers`,
      found: blocks.length,
      expected: held,
      hint: 'config.json and the checkpoint do not belong together.',
    });
}

/** Element types that checkpoints of supported models store their weights in. */
const weightDtypes: readonly string[] = ['F32', 'F16', 'BF16'];

/**
 * Checks what a file says about a tensor; `dtype` is null for a quantized one.
 *
 * @throws `LUTRA_E_SHAPE` where its shape is not what config.json implies, `LUTRA_E_DTYPE` where it holds no weights.
 */
export function checkTensor(
  graph: ModelGraph,
  { name, shape, dtype }: { name: string; shape: readonly number[]; dtype: string | null },
  where: string,
): void {
  const expected = graph.shapes.get(name);
  if (expected && (expected.length !== shape.length || expected.some((n, i) => n !== shape[i])))
    throw lutraError('LUTRA_E_SHAPE', {
      message: `${name} contradicts config.json`,
      where,
      found: `[${shape.join(', ')}]`,
      expected: `[${expected.join(', ')}]`,
    });
  if (dtype !== null && !weightDtypes.includes(dtype))
    throw lutraError('LUTRA_E_DTYPE', {
      message: `${name} is of a type that no weight has`,
      where,
      found: dtype,
      expected: weightDtypes.join(', '),
    });
}
