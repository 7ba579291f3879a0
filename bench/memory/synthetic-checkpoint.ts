/**
 * Writes a checkpoint with the shapes of a well-known model and random weights, for measuring memory and time:
 *
 *     tsx bench/memory/synthetic-checkpoint.ts <directory> [name of `configs`] [--sparse]
 *
 * BF16 in shards, normal weights of the usual scale, a tokenizer that maps every byte to an id of its own. A sparse one takes no
 * disk: all but the first numbers of a tensor are zeros that are not stored.
 */
import { mkdirSync, writeFileSync } from 'node:fs';
import { open } from 'node:fs/promises';
import { join } from 'node:path';
import {
  defaultShardBytes,
  type PlannedTensor,
  planSafetensors,
  type SafetensorsPlan,
  SafetensorsWriter,
} from '../../lib/formats/index.js';
import { buildGraph, parseConfig } from '../../lib/models/index.js';
import { elements, Tensor } from '../../lib/tensor/index.js';

const tinyLlama = {
  architectures: ['LlamaForCausalLM'],
  model_type: 'llama',
  hidden_size: 2048,
  intermediate_size: 5632,
  num_hidden_layers: 22,
  num_attention_heads: 32,
  num_key_value_heads: 4,
  vocab_size: 32000,
  max_position_embeddings: 2048,
  rms_norm_eps: 1e-5,
  rope_theta: 10000,
  hidden_act: 'silu',
  tie_word_embeddings: false,
  torch_dtype: 'bfloat16',
  bos_token_id: 1,
  eos_token_id: 2,
};

const llama2 = {
  ...tinyLlama,
  hidden_size: 4096,
  intermediate_size: 11008,
  num_hidden_layers: 32,
  num_key_value_heads: 32,
  max_position_embeddings: 4096,
};

export const configs: Record<string, Record<string, unknown>> = {
  'tinyllama-1.1b': tinyLlama,
  'tinyllama-1.1b-two-blocks': { ...tinyLlama, num_hidden_layers: 2 },
  'tinyllama-1.1b-one-block': { ...tinyLlama, num_hidden_layers: 1, vocab_size: 512 },
  'llama-2-7b': llama2,
  tiny: {
    ...tinyLlama,
    hidden_size: 64,
    intermediate_size: 96,
    num_hidden_layers: 2,
    num_attention_heads: 4,
    num_key_value_heads: 2,
    vocab_size: 300,
    max_position_embeddings: 64,
  },
  'llama-2-7b-one-block': { ...llama2, num_hidden_layers: 1, vocab_size: 512 },
};

/** Numbers that a sparse tensor holds. */
const sparseElements = 2048;

/** BF16 bits of normal values of standard deviation `scale`, from a small fixed table: writing must not be the slow part. */
function normalTable(scale: number): Uint16Array {
  const table = new Uint16Array(1 << 16);
  const single = new Float32Array(1);
  const bits = new Uint32Array(single.buffer);
  let state = 12345;
  const uniform = () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return (state + 0.5) / 2 ** 32;
  };
  for (let i = 0; i < table.length; i++) {
    single[0] = scale * Math.sqrt(-2 * Math.log(uniform())) * Math.cos(2 * Math.PI * uniform());
    table[i] = ((bits[0] ?? 0) + 0x8000) >>> 16;
  }
  return table;
}

function fillRandom(tensor: Tensor, table: Uint16Array, seed: number): void {
  const piece = new Uint16Array(1 << 20);
  let state = (seed * 2654435761 + 1) >>> 0;
  for (let at = 0; at < tensor.elements; at += piece.length) {
    const count = Math.min(piece.length, tensor.elements - at);
    for (let i = 0; i < count; i++) {
      state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
      piece[i] = table[state >>> 16] ?? 0;
    }
    tensor.write(count === piece.length ? piece : piece.slice(0, count), at);
  }
}

/** A byte-level vocabulary: three special tokens, then the 256 bytes. */
function tokenizer(): Record<string, unknown> {
  const vocab: Record<string, number> = { '<unk>': 0, '<s>': 1, '</s>': 2 };
  for (let byte = 0; byte < 256; byte++) {
    const hex = byte.toString(16).toUpperCase().padStart(2, '0');
    vocab[`<0x${hex}>`] = byte + 3;
  }
  const special = (id: number, content: string) => ({
    id,
    content,
    single_word: false,
    lstrip: false,
    rstrip: false,
    normalized: false,
    special: true,
  });
  return {
    version: '1.0',
    truncation: null,
    padding: null,
    added_tokens: [special(0, '<unk>'), special(1, '<s>'), special(2, '</s>')],
    normalizer: null,
    pre_tokenizer: null,
    post_processor: null,
    decoder: { type: 'Sequence', decoders: [{ type: 'ByteFallback' }, { type: 'Fuse' }] },
    model: { type: 'BPE', unk_token: '<unk>', fuse_unk: true, byte_fallback: true, vocab, merges: [] },
  };
}

export interface SyntheticOptions {
  sparse?: boolean;
  /** Changes what the files say, which need not be a model then. */
  edit?: (tensors: Map<string, PlannedTensor>) => void;
  /** Fields of config.json over those of the shapes, unknown to the tensors. */
  config?: Record<string, unknown>;
  shardBytes?: number;
}

export async function writeSyntheticCheckpoint(
  directory: string,
  name = 'tinyllama-1.1b',
  options: SyntheticOptions = {},
): Promise<void> {
  const config = configs[name];
  if (!config) throw new Error(`no shapes for ${name}: ${Object.keys(configs).join(', ')}`);
  mkdirSync(directory, { recursive: true });
  writeFileSync(join(directory, 'config.json'), JSON.stringify({ ...config, ...options.config }, null, 2));
  writeFileSync(join(directory, 'tokenizer.json'), JSON.stringify(tokenizer()));
  writeFileSync(
    join(directory, 'tokenizer_config.json'),
    JSON.stringify({
      tokenizer_class: 'LlamaTokenizer',
      bos_token: '<s>',
      eos_token: '</s>',
      unk_token: '<unk>',
      add_bos_token: true,
    }),
  );
  const { shapes } = buildGraph(parseConfig(config, name));
  const planned = new Map<string, PlannedTensor>();
  for (const [tensor, shape] of shapes) planned.set(tensor, { name: tensor, dtype: 'BF16', shape });
  options.edit?.(planned);
  const plan = planSafetensors([...planned.values()], { shardBytes: options.shardBytes ?? defaultShardBytes });
  const weights = normalTable(0.02);
  if (options.sparse) return await writeSparse(directory, plan, weights);
  const writer = await SafetensorsWriter.create(directory, plan);
  let seed = 0;
  for (const [tensorName, shape] of shapes) {
    const tensor = Tensor.zeros('bf16', shape);
    if (elements(shape) === shape[0]) tensor.fill(1);
    else fillRandom(tensor, weights, ++seed);
    await writer.write(tensorName, tensor);
    tensor.dispose();
  }
  await writer.close();
}

async function writeSparse(directory: string, plan: SafetensorsPlan, weights: Uint16Array): Promise<void> {
  for (const { name, header, size } of plan.files) {
    const path = join(directory, name);
    const file = await open(path, 'w');
    await file.write(header, 0, header.length, 0);
    for (const entry of plan.entries.values()) {
      if (entry.file !== name) continue;
      const bytes = Math.min(2 * sparseElements, entry.end - entry.begin);
      await file.write(new Uint8Array(weights.buffer, 0, bytes), 0, bytes, entry.begin);
    }
    await file.truncate(size);
    await file.close();
  }
  if (plan.index) writeFileSync(join(directory, 'model.safetensors.index.json'), plan.index);
}

const [, script, directory, name] = process.argv;
if (script?.endsWith('synthetic-checkpoint.ts')) {
  if (!directory) throw new Error('usage: tsx bench/memory/synthetic-checkpoint.ts <directory> [name]');
  await writeSyntheticCheckpoint(directory, name, { sparse: process.argv.includes('--sparse') });
}
