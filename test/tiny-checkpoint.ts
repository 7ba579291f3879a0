import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Random } from '../lib/calibration/index.js';

/** Writes random, tiny models of the Llama family as Hugging Face directories, by nothing of lib/formats. */

export interface TinyOptions {
  /** Fields of config.json over the defaults below. */
  config?: Record<string, unknown>;
  dtype?: 'F32' | 'F16' | 'BF16';
  seed?: number;
  /** Under which name tied weights are stored. */
  tiedName?: 'model.embed_tokens.weight' | 'lm_head.weight';
  /** Tensors to leave out, or to add or replace, by name and shape. */
  without?: readonly string[];
  shapes?: Record<string, readonly number[]>;
}

const defaults = {
  architectures: ['LlamaForCausalLM'],
  model_type: 'llama',
  hidden_act: 'silu',
  hidden_size: 32,
  intermediate_size: 48,
  num_hidden_layers: 2,
  num_attention_heads: 4,
  num_key_value_heads: 4,
  vocab_size: 40,
  max_position_embeddings: 64,
  rms_norm_eps: 1e-5,
  bos_token_id: 1,
  eos_token_id: 2,
  tie_word_embeddings: false,
};

/** Makes the directory; the caller removes it. */
export function writeTinyModel(options: TinyOptions = {}): string {
  const dir = mkdtempSync(join(tmpdir(), 'lutra-tiny-'));
  const config = { ...defaults, ...options.config };
  writeFileSync(join(dir, 'config.json'), JSON.stringify(config));
  writeFileSync(join(dir, 'model.safetensors'), safetensors(tinyShapes(config, options), options));
  writeFileSync(join(dir, 'tokenizer.json'), JSON.stringify(tinyTokenizer(config.vocab_size)));
  const special = { bos_token: '<s>', eos_token: '</s>', unk_token: '<unk>', add_bos_token: true };
  writeFileSync(join(dir, 'tokenizer_config.json'), JSON.stringify(special));
  return dir;
}

/** Runs `use` on a tiny model's directory and removes it. */
export async function withTinyModel<T>(options: TinyOptions, use: (dir: string) => Promise<T>): Promise<T> {
  const dir = writeTinyModel(options);
  try {
    return await use(dir);
  } finally {
    rmSync(dir, { recursive: true });
  }
}

/** Letters a, b, c … of the tiny vocabulary, which are ids 3, 4, 5 … */
export const tinyLetter = (id: number): string => String.fromCodePoint('a'.codePointAt(0)! + id - 3);

type TinyConfig = typeof defaults & { head_dim?: number; attention_bias?: boolean; mlp_bias?: boolean };

function tinyShapes(config: TinyConfig, options: TinyOptions): Map<string, readonly number[]> {
  const { hidden_size: width, intermediate_size: inner, vocab_size: vocabulary } = config;
  const headDim = config.head_dim ?? width / config.num_attention_heads;
  const [q, kv] = [config.num_attention_heads * headDim, config.num_key_value_heads * headDim];
  const shapes = new Map<string, readonly number[]>();
  shapes.set(config.tie_word_embeddings ? (options.tiedName ?? 'model.embed_tokens.weight') : 'lm_head.weight', [
    vocabulary,
    width,
  ]);
  if (!config.tie_word_embeddings) shapes.set('model.embed_tokens.weight', [vocabulary, width]);
  for (let layer = 0; layer < config.num_hidden_layers; layer++) {
    const linears: [string, number, number, boolean | undefined][] = [
      ['self_attn.q_proj', q, width, config.attention_bias],
      ['self_attn.k_proj', kv, width, config.attention_bias],
      ['self_attn.v_proj', kv, width, config.attention_bias],
      ['self_attn.o_proj', width, q, config.attention_bias],
      ['mlp.gate_proj', inner, width, config.mlp_bias],
      ['mlp.up_proj', inner, width, config.mlp_bias],
      ['mlp.down_proj', width, inner, config.mlp_bias],
    ];
    for (const [name, out, into, bias] of linears) {
      shapes.set(`model.layers.${layer}.${name}.weight`, [out, into]);
      if (bias) shapes.set(`model.layers.${layer}.${name}.bias`, [out]);
    }
    for (const norm of ['input_layernorm', 'post_attention_layernorm'])
      shapes.set(`model.layers.${layer}.${norm}.weight`, [width]);
  }
  shapes.set('model.norm.weight', [width]);
  for (const name of options.without ?? []) shapes.delete(name);
  for (const [name, shape] of Object.entries(options.shapes ?? {})) shapes.set(name, shape);
  return shapes;
}

function safetensors(shapes: ReadonlyMap<string, readonly number[]>, options: TinyOptions): Buffer {
  const { dtype = 'F32', seed = 1 } = options;
  const random = new Random(seed);
  const header: Record<string, object> = {};
  const parts: Buffer[] = [];
  let begin = 0;
  for (const [name, shape] of shapes) {
    const values = tinyValues(name, shape, random);
    const bytes = encode(values, dtype);
    header[name] = { dtype, shape, data_offsets: [begin, begin + bytes.length] };
    begin += bytes.length;
    parts.push(bytes);
  }
  const text = Buffer.from(JSON.stringify(header));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(text.length));
  return Buffer.concat([length, text, ...parts]);
}

/** Sizes at which every part of a block matters: sharp attention, active gates, biases and norms that are not neutral. */
function tinyValues(name: string, shape: readonly number[], random: Random): number[] {
  const count = shape.reduce((product, n) => product * n, 1);
  const centred = () => (random.next() + random.next() + random.next() - 1.5) * 2;
  if (name.endsWith('norm.weight')) return Array.from({ length: count }, () => 1 + 0.3 * centred());
  const spread = name.endsWith('.bias') ? 0.5 : 1.5 / Math.sqrt(shape[1]!);
  return Array.from({ length: count }, () => spread * centred());
}

function encode(values: readonly number[], dtype: 'F32' | 'F16' | 'BF16'): Buffer {
  const bytes = Buffer.alloc(values.length * (dtype === 'F32' ? 4 : 2));
  values.forEach((value, i) => {
    if (dtype === 'F32') bytes.writeFloatLE(value, 4 * i);
    else bytes.writeUInt16LE(dtype === 'F16' ? halfBits(value) : bfloat16Bits(value), 2 * i);
  });
  return bytes;
}

/** Rounds to 10 fraction bits; only for normal halves and 0. */
function halfBits(value: number): number {
  const magnitude = Math.abs(value);
  if (magnitude < 2 ** -14) return 0;
  const exponent = Math.floor(Math.log2(magnitude));
  const fraction = Math.floor((magnitude / 2 ** exponent - 1) * 1024);
  return (value < 0 ? 0x8000 : 0) | ((exponent + 15) << 10) | fraction;
}

function bfloat16Bits(value: number): number {
  const view = new DataView(new ArrayBuffer(4));
  view.setFloat32(0, value);
  return view.getUint16(0);
}

/** One token a letter; `<unk>`, `<s>` and `</s>` are 0, 1 and 2. */
function tinyTokenizer(vocabularySize: number): object {
  const special = ['<unk>', '<s>', '</s>'];
  const letters = Array.from({ length: vocabularySize - 3 }, (_, i) => tinyLetter(i + 3));
  const flags = { single_word: false, lstrip: false, rstrip: false, normalized: false, special: true };
  return {
    version: '1.0',
    added_tokens: special.map((content, id) => ({ id, content, ...flags })),
    normalizer: null,
    pre_tokenizer: null,
    post_processor: null,
    decoder: { type: 'Fuse' },
    model: {
      type: 'BPE',
      unk_token: '<unk>',
      fuse_unk: false,
      byte_fallback: false,
      vocab: Object.fromEntries([...special, ...letters].map((token, id) => [token, id])),
      merges: [],
    },
  };
}
