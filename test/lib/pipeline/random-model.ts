import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll } from 'vitest';
import { Random } from '../../../lib/calibration/index.js';
import { planSafetensors, SafetensorsWriter } from '../../../lib/formats/index.js';
import { buildGraph, parseConfig } from '../../../lib/models/index.js';
import { elements, Tensor } from '../../../lib/tensor/index.js';
import { normal } from '../quantization/matrices.js';

export const tinyConfig = {
  architectures: ['LlamaForCausalLM'],
  model_type: 'llama',
  hidden_size: 64,
  intermediate_size: 96,
  num_hidden_layers: 2,
  num_attention_heads: 4,
  num_key_value_heads: 2,
  vocab_size: 64,
  max_position_embeddings: 48,
  rms_norm_eps: 1e-5,
  rope_theta: 10000,
  hidden_act: 'silu',
  tie_word_embeddings: false,
  torch_dtype: 'float32',
  bos_token_id: 0,
  eos_token_id: 1,
};

/** A directory that goes with the test file. */
export function scratchDirectory(): string {
  const directory = mkdtempSync(join(tmpdir(), 'lutra-pipeline-'));
  afterAll(() => rmSync(directory, { recursive: true, force: true }));
  return directory;
}

export interface RandomModelOptions {
  config?: Record<string, unknown>;
  seed?: number;
  /** Changes a tensor's values before they are written. */
  edit?: (name: string, values: Float32Array) => void;
}

/** A random model of the Llama family in f32, with a tokenizer of one id a word: w4, w5, … */
export async function writeRandomModel(directory: string, options: RandomModelOptions = {}): Promise<string> {
  const config = { ...tinyConfig, ...options.config };
  mkdirSync(directory, { recursive: true });
  writeFileSync(join(directory, 'config.json'), JSON.stringify(config));
  writeFileSync(join(directory, 'tokenizer.json'), JSON.stringify(wordTokenizer(config.vocab_size)));
  writeFileSync(join(directory, 'tokenizer_config.json'), JSON.stringify({ bos_token: '<s>' }));
  const { shapes } = buildGraph(parseConfig(config, 'config.json'));
  const planned = [...shapes].map(([name, shape]) => ({ name, dtype: 'F32' as const, shape: [...shape] }));
  const writer = await SafetensorsWriter.create(directory, planSafetensors(planned));
  let seed = (options.seed ?? 1) * 1000;
  for (const { name, shape } of planned) {
    const scale = name.includes('embed') ? 1 : 1 / Math.sqrt(shape.at(-1)!);
    const isNorm = shape.length === 1;
    const values = isNorm ? new Float32Array(elements(shape)).fill(1) : normal(shape[0]!, shape[1]!, seed++, scale);
    options.edit?.(name, values);
    using tensor = Tensor.copyOf(values, shape);
    await writer.write(name, tensor);
  }
  await writer.close();
  return directory;
}

function wordTokenizer(size: number): object {
  const vocab: Record<string, number> = { '<s>': 0, '<unk>': 1, a: 2, b: 3 };
  for (let id = 4; id < size; id++) vocab[`w${id}`] = id;
  const special = (id: number, content: string) => ({ id, content, special: true, normalized: false });
  return {
    added_tokens: [special(0, '<s>'), special(1, '<unk>')],
    normalizer: null,
    pre_tokenizer: { type: 'Whitespace' },
    post_processor: null,
    decoder: null,
    model: { type: 'WordLevel', vocab, unk_token: '<unk>' },
  };
}

/** Words of that tokenizer. */
export function words(count: number, seed = 3): string {
  const random = new Random(seed);
  return Array.from({ length: count }, () => `w${4 + random.below(60)}`).join(' ');
}

/** Every file of a directory by name, as bytes, but for the one that tells seconds. */
export function filesOf(directory: string): Map<string, Buffer> {
  const names = readdirSync(directory).filter((name) => name !== 'run-log.json');
  return new Map(names.sort().map((name) => [name, readFileSync(join(directory, name))]));
}
