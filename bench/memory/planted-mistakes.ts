import { mkdirSync, readdirSync, rmSync, symlinkSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { LutraErrorCode, QuantizationJob } from '../../lib/index.js';
import { type SyntheticOptions, writeSyntheticCheckpoint } from './synthetic-checkpoint.js';

/** A job with one mistake in it. */
export interface Mistake {
  name: string;
  code: LutraErrorCode;
  /** None for a small one. */
  ofLargeModels?: boolean;
  /** Changes the checkpoint that is written. */
  checkpoint?: SyntheticOptions;
  /** Changes its files, and says how the job differs from one that could run. */
  plant?: (place: { model: string; out: string; folder: string }) => Partial<QuantizationJob> | undefined;
}

const gptq = { method: 'gptq', bits: 3, groupSize: 128 };
const rtn = { method: 'rtn', bits: 3, groupSize: 128 };
const text = 'It was a dark and stormy night. '.repeat(400);
const calibration = { texts: [text], samples: 4, sequenceLength: 64 };
const q = 'model.layers.0.self_attn.q_proj.weight';
const norm = 'model.norm.weight';

const job = (change: Partial<QuantizationJob>) => () => change;
const recipe = (change: object) => job({ recipe: { ...rtn, ...change } as QuantizationJob['recipe'] });
const lastShard = (model: string) =>
  readdirSync(model)
    .filter((name) => name.endsWith('.safetensors'))
    .sort()
    .map((name) => join(model, name))
    .at(-1)!;
const put = (model: string, file: string, content: unknown) =>
  writeFileSync(join(model, file), typeof content === 'string' ? content : JSON.stringify(content));
const tokenizerOf = (size: number) => ({
  added_tokens: [],
  normalizer: null,
  pre_tokenizer: { type: 'Whitespace' },
  post_processor: null,
  decoder: null,
  model: { type: 'WordLevel', vocab: { '<unk>': 0, a: size }, unk_token: '<unk>' },
});

/** Mistakes that people make; preflight finds every one before weights are read. */
export const mistakes: readonly Mistake[] = [
  { name: 'no such model', code: 'LUTRA_E_NOT_FOUND', plant: ({ folder }) => ({ model: join(folder, 'nowhere') }) },
  {
    name: 'config.json is no JSON',
    code: 'LUTRA_E_HEADER',
    plant: ({ model }) => void put(model, 'config.json', '{ "model_type": "llama"'),
  },
  {
    name: 'another architecture',
    code: 'LUTRA_E_UNSUPPORTED_MODEL',
    checkpoint: { config: { model_type: 'gpt2' } },
  },
  { name: 'config.json of another size', code: 'LUTRA_E_SHAPE', checkpoint: { config: { num_key_value_heads: 1 } } },
  { name: 'fewer layers counted', code: 'LUTRA_E_SHAPE', checkpoint: { config: { num_hidden_layers: 1 } } },
  { name: 'more layers counted', code: 'LUTRA_E_NOT_FOUND', checkpoint: { config: { num_hidden_layers: 33 } } },
  { name: 'a missing tensor', code: 'LUTRA_E_NOT_FOUND', checkpoint: { edit: (tensors) => void tensors.delete(norm) } },
  {
    name: 'a tensor too many',
    code: 'LUTRA_E_UNSUPPORTED_MODEL',
    checkpoint: {
      edit: (tensors) => {
        const name = 'model.layers.0.self_attn.q_norm.weight';
        tensors.set(name, { name, dtype: 'BF16', shape: [64] });
      },
    },
  },
  {
    name: 'a bias that config.json does not announce',
    code: 'LUTRA_E_UNSUPPORTED_MODEL',
    checkpoint: {
      edit: (tensors) => {
        const name = q.replace('weight', 'bias');
        tensors.set(name, { name, dtype: 'BF16', shape: [64] });
      },
    },
  },
  {
    name: 'a wrong shape',
    code: 'LUTRA_E_SHAPE',
    checkpoint: { edit: (tensors) => void tensors.set(norm, { name: norm, dtype: 'BF16', shape: [65] }) },
  },
  {
    name: 'a type that no weight has',
    code: 'LUTRA_E_DTYPE',
    checkpoint: { edit: (tensors) => void tensors.set(q, { ...tensors.get(q)!, dtype: 'I32' }) },
  },
  {
    name: 'a missing shard',
    code: 'LUTRA_E_NOT_FOUND',
    checkpoint: { shardBytes: 30_000 },
    plant: ({ model }) => void rmSync(lastShard(model)),
  },
  {
    name: 'a truncated shard',
    code: 'LUTRA_E_TRUNCATED',
    plant: ({ model }) => void truncateSync(lastShard(model), 50_000),
  },
  {
    name: 'a model that is quantized already',
    code: 'LUTRA_E_UNSUPPORTED_MODEL',
    checkpoint: { config: { quantization_config: { quant_method: 'gptq', bits: 4 } } },
  },
  {
    name: 'a license that lies elsewhere',
    code: 'LUTRA_E_HEADER',
    plant: ({ model, folder }) => {
      writeFileSync(join(folder, 'terms'), 'terms');
      symlinkSync(join(folder, 'terms'), join(model, 'LICENSE'));
      return undefined;
    },
  },
  {
    name: 'the output is the model',
    code: 'LUTRA_E_SAME_PATH',
    plant: ({ model }) => ({ out: model, overwrite: true }),
  },
  {
    name: 'the output is a link to the model',
    code: 'LUTRA_E_SAME_PATH',
    plant: ({ model, out }) => {
      symlinkSync(model, out);
      return { overwrite: true };
    },
  },
  {
    name: 'the output is there',
    code: 'LUTRA_E_EXISTS',
    plant: ({ out }) => void mkdirSync(out),
  },
  {
    name: 'the output to be replaced is something else',
    code: 'LUTRA_E_EXISTS',
    plant: ({ out }) => {
      mkdirSync(out);
      put(out, 'thesis.txt', 'the only copy');
      return { overwrite: true };
    },
  },
  {
    name: 'the output lies below a file',
    code: 'LUTRA_E_EXISTS',
    plant: ({ folder }) => {
      put(folder, 'file', '');
      return { out: join(folder, 'file', 'out') };
    },
  },
  { name: 'a misspelt method', code: 'LUTRA_E_METHOD', plant: recipe({ method: 'gtpq' }) },
  { name: 'five bits', code: 'LUTRA_E_BITS', plant: recipe({ bits: 5 }) },
  { name: 'a group size without a layout', code: 'LUTRA_E_GROUP_SIZE', plant: recipe({ groupSize: 100 }) },
  { name: 'an unknown option', code: 'LUTRA_E_OPTION', plant: recipe({ dampning: 0.1 }) },
  {
    name: 'an override for no layer',
    code: 'LUTRA_E_OPTION',
    plant: recipe({ overrides: [{ match: '*.q_porj', bits: 4 }] }),
  },
  {
    name: 'a rank that is too large',
    code: 'LUTRA_E_SHAPE',
    plant: recipe({ lowRank: { method: 'loftq', rank: 4352 } }),
  },
  {
    name: 'a budget below the fewest bits',
    code: 'LUTRA_E_OPTION',
    plant: () => ({ recipe: { ...gptq, allocation: { bitsPerWeight: 1.5 } }, calibration }),
  },
  {
    name: 'a low-rank method with an option that it does not know',
    code: 'LUTRA_E_OPTION',
    plant: recipe({ lowRank: { method: 'loftq', rnk: 32 } }),
  },
  { name: 'no text', code: 'LUTRA_E_OPTION', plant: job({ recipe: gptq }) },
  {
    name: 'a text that is not there',
    code: 'LUTRA_E_NOT_FOUND',
    plant: ({ folder }) => ({ recipe: gptq, calibration: { file: join(folder, 'unwritten.txt') } }),
  },
  {
    name: 'a text that is too short',
    code: 'LUTRA_E_CALIBRATION_TOO_SHORT',
    plant: job({ recipe: gptq, calibration: { ...calibration, texts: ['Too short.'] } }),
  },
  {
    name: 'no windows',
    code: 'LUTRA_E_OPTION',
    plant: job({ recipe: gptq, calibration: { ...calibration, samples: 0 } }),
  },
  {
    name: 'windows beyond the context',
    code: 'LUTRA_E_OPTION',
    plant: job({ recipe: gptq, calibration: { ...calibration, sequenceLength: 5000 } }),
  },
  {
    name: 'a separator that is nowhere',
    code: 'LUTRA_E_OPTION',
    plant: job({ recipe: gptq, calibration: { ...calibration, separator: '<|end|>' } }),
  },
  {
    name: 'no tokenizer for the text',
    code: 'LUTRA_E_NOT_FOUND',
    plant: ({ model }) => {
      rmSync(join(model, 'tokenizer.json'));
      return { recipe: gptq, calibration };
    },
  },
  {
    name: 'a tokenizer with ids beyond the embedding',
    code: 'LUTRA_E_SHAPE',
    plant: ({ model }) => {
      put(model, 'tokenizer.json', tokenizerOf(32_000));
      return { recipe: gptq, calibration };
    },
  },
  {
    name: 'windows that no disk holds',
    code: 'LUTRA_E_DISK_FULL',
    ofLargeModels: true,
    plant: job({ recipe: gptq, calibration: { ...calibration, samples: 2 ** 20, heldOut: 0 } }),
  },
  { name: 'too little memory', code: 'LUTRA_E_MEMORY', plant: job({ maxMemoryBytes: 50e6 }) },
];

/** Writes the model of a mistake, and tells the job that has it. */
export async function plantMistake(
  { checkpoint, plant }: Mistake,
  folder: string,
  shapes: string,
): Promise<QuantizationJob> {
  const place = { model: join(folder, 'model'), out: join(folder, 'out'), folder };
  await writeSyntheticCheckpoint(place.model, shapes, { ...checkpoint, sparse: true });
  return { model: place.model, out: place.out, recipe: rtn, ...plant?.(place) };
}
