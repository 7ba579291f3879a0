import { lutraError } from '../errors.js';
import { Fields } from './fields.js';
import { parseRopeScaling, type RopeScaling, ropeTheta, sameScaling } from './rope-scaling.js';

/** What the library needs to know of a model of the Llama family; from a Hugging Face config.json. */
export interface LlamaConfig {
  readonly modelType: 'llama' | 'mistral';
  readonly hiddenSize: number;
  readonly intermediateSize: number;
  readonly layers: number;
  readonly heads: number;
  /** Heads of keys and values; divides `heads`. */
  readonly kvHeads: number;
  /** Even; `heads * headDim` need not be `hiddenSize`. */
  readonly headDim: number;
  readonly vocabularySize: number;
  /** Positions the model was made for (max_position_embeddings). */
  readonly context: number;
  readonly normEpsilon: number;
  readonly ropeTheta: number;
  readonly ropeScaling: RopeScaling;
  /** Positions a query sees, itself included; 0 for all. */
  readonly slidingWindow: number;
  readonly attentionBias: boolean;
  readonly mlpBias: boolean;
  readonly tiedEmbeddings: boolean;
  readonly bosId: number | null;
  readonly eosIds: readonly number[];
}

/** Sizes beyond these are taken for damage or malice: they would be allocated before a tensor is seen. */
const limits = {
  width: 2 ** 17,
  layers: 1024,
  heads: 1024,
  headDim: 1024,
  vocabulary: 2 ** 22,
  context: 2 ** 24,
} as const;

const architectures = { llama: 'LlamaForCausalLM', mistral: 'MistralForCausalLM' } as const;

/**
 * Reads a Hugging Face config.json of the Llama family: Llama 1-3, Mistral, TinyLlama, SmolLM and their like.
 *
 * @param raw the parsed JSON.
 * @param where the file, for errors.
 * @throws `LUTRA_E_UNSUPPORTED_MODEL` for every feature that is not implemented, named with its value;
 *   `LUTRA_E_SHAPE` for numbers that are missing, absurd or contradict each other.
 */
export function parseConfig(raw: unknown, where: string): LlamaConfig {
  const fields = new Fields(raw, where);
  const modelType = fields.word('model_type', ['llama', 'mistral']);
  refuseUnsupported(fields, modelType);
  const hiddenSize = fields.count('hidden_size', limits.width);
  const heads = fields.count('num_attention_heads', limits.heads);
  const context = fields.count('max_position_embeddings', limits.context);
  const vocabularySize = fields.count('vocab_size', limits.vocabulary);
  return {
    modelType,
    hiddenSize,
    intermediateSize: fields.count('intermediate_size', limits.width * 8),
    layers: fields.count('num_hidden_layers', limits.layers),
    heads,
    kvHeads: keyValueHeads(fields, modelType, heads),
    headDim: headDimension(fields, hiddenSize, heads),
    vocabularySize,
    context,
    normEpsilon: fields.number('rms_norm_eps', 1e-20, 1, 1e-6),
    ropeTheta: ropeTheta(fields),
    ropeScaling: ropeScaling(fields),
    slidingWindow: slidingWindow(fields, modelType),
    attentionBias: fields.flag('attention_bias', false),
    mlpBias: fields.flag('mlp_bias', false),
    tiedEmbeddings: fields.flag('tie_word_embeddings', false),
    bosId: fields.ids('bos_token_id', vocabularySize)[0] ?? null,
    eosIds: fields.ids('eos_token_id', vocabularySize),
  };
}

function refuseUnsupported(fields: Fields, modelType: keyof typeof architectures): void {
  const unsupported = 'LUTRA_E_UNSUPPORTED_MODEL';
  const named = fields.get('architectures');
  if (named !== undefined && !(Array.isArray(named) && named.length === 1 && named[0] === architectures[modelType]))
    fields.refuse(unsupported, 'architectures', `["${architectures[modelType]}"]`);
  fields.word('hidden_act', ['silu'], 'silu');
  const dtype = fields.get('dtype') !== undefined ? 'dtype' : 'torch_dtype';
  fields.word(dtype, ['float32', 'float16', 'bfloat16'], 'float32');
  const partial = fields.get('partial_rotary_factor');
  if (partial !== undefined && partial !== 1) fields.refuse(unsupported, 'partial_rotary_factor', '1');
  const method = fields.object('quantization_config')?.get('quant_method') ?? 'lutra';
  if (method !== 'lutra')
    fields.refuse(
      unsupported,
      'quantization_config',
      'a quant_method of lutra, or an unquantized model',
      'Quantize the original 16-bit checkpoint instead.',
    );
  const kinds = fields.get('layer_types');
  const kind = slidingWindow(fields, modelType) === 0 ? 'full_attention' : 'sliding_attention';
  if (kinds !== undefined && !(Array.isArray(kinds) && kinds.every((entry) => entry === kind)))
    fields.refuse(unsupported, 'layer_types', `${kind} in every layer`);
  if (modelType === 'mistral')
    for (const name of ['attention_bias', 'mlp_bias'])
      if (fields.flag(name, false)) fields.refuse(unsupported, name, 'false for a model of type mistral');
}

/** Transformers' defaults where the file does not say: all heads for Llama, 8 for Mistral. */
function keyValueHeads(fields: Fields, modelType: LlamaConfig['modelType'], heads: number): number {
  const kvHeads = fields.count('num_key_value_heads', limits.heads, modelType === 'llama' ? heads : 8);
  if (heads % kvHeads !== 0)
    fields.refuse('LUTRA_E_SHAPE', 'num_key_value_heads', `a divisor of num_attention_heads, ${heads}`);
  return kvHeads;
}

function headDimension(fields: Fields, hiddenSize: number, heads: number): number {
  if (fields.get('head_dim') === undefined && hiddenSize % heads !== 0)
    fields.refuse('LUTRA_E_SHAPE', 'hidden_size', `a multiple of num_attention_heads, ${heads}, or a head_dim`);
  const headDim = fields.count('head_dim', limits.headDim, hiddenSize / heads);
  if (headDim % 2 !== 0)
    throw lutraError('LUTRA_E_SHAPE', {
      message: 'rotary embeddings need heads of even size',
      where: fields.where,
      found: headDim,
      expected: 'an even head_dim',
    });
  return headDim;
}

/** Null means none; a Mistral file that does not say means 4096, as in Transformers. */
function slidingWindow(fields: Fields, modelType: LlamaConfig['modelType']): number {
  if (modelType === 'mistral' && !fields.has('sliding_window')) return 4096;
  if (fields.get('sliding_window') === undefined) return 0;
  if (modelType === 'llama')
    fields.refuse('LUTRA_E_UNSUPPORTED_MODEL', 'sliding_window', 'null for a model of type llama');
  return fields.count('sliding_window', limits.context);
}

/** `rope_parameters` is the newer name of `rope_scaling`; a file with both must say the same twice. */
function ropeScaling(fields: Fields): RopeScaling {
  const older = fields.object('rope_scaling');
  const newer = fields.object('rope_parameters');
  const scaling = parseRopeScaling(newer ?? older);
  if (older && newer && !sameScaling(parseRopeScaling(older), scaling))
    fields.refuse('LUTRA_E_UNSUPPORTED_MODEL', 'rope_scaling', 'the same as rope_parameters');
  return scaling;
}
