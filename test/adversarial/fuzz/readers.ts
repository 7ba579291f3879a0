import { hostname } from 'node:os';
import { parseJsonObject } from '../../../lib/formats/json-file.js';
import { defaultLimits, type ReadLimits } from '../../../lib/formats/limits.js';
import { bytesOf } from '../../../lib/formats/lutra/index.js';
import { ownerOf, requireEnded } from '../../../lib/formats/lutra/job-mark.js';
import { parseQuantizationConfig } from '../../../lib/formats/lutra/quantization-config.js';
import { headerLength, lengthBytes, parseHeader } from '../../../lib/formats/safetensors/header.js';
import { parseShardIndex } from '../../../lib/formats/safetensors/shard-index.js';
import { parseSettings } from '../../../lib/formats/settings.js';
import type { JsonObject } from '../../../lib/formats/strict-json.js';
import { eosIdsOf } from '../../../lib/inference/generation-config.js';
import { buildGraph, parseConfig } from '../../../lib/models/index.js';
import { checksumOf, contentOf } from '../../../lib/pipeline/journal.js';
import { provenance } from '../../../lib/pipeline/manifest.js';
import { checkManifest } from '../../../lib/pipeline/read-manifest.js';
import { normalizeRecipe } from '../../../lib/quantization/index.js';
import { Tokenizer } from '../../../lib/tokenizer/index.js';
import { fileBytes } from '../../lib/formats/safetensors-bytes.js';
import { tokenizers } from './tokenizer-seeds.js';

/** A reader of files that nobody vouches for: what it is fuzzed from, and how it is called on bytes. */
export interface Reader {
  seeds: readonly Uint8Array[];
  read(bytes: Uint8Array): unknown;
}

const limits: ReadLimits = { ...defaultLimits };
const json = (...values: unknown[]) => values.map((value) => Buffer.from(JSON.stringify(value)));
const object = (bytes: Uint8Array, name: string) => parseJsonObject(bytes, name, limits);
const entry = (begin: number, end: number, dtype: string, shape: number[]) => ({
  dtype,
  shape,
  data_offsets: [begin, end],
});

const headers = [
  fileBytes({
    __metadata__: { format: 'pt' },
    'model.layers.0.mlp.up_proj.weight': entry(0, 64, 'F16', [4, 8]),
    'lm_head.weight': entry(64, 96, 'F32', [2, 4]),
  }),
  fileBytes({ a: entry(0, 0, 'F32', [3, 0]), 'b\u00e9\u{1f600}': entry(0, 96, 'F4', [192]) }),
  fileBytes(
    '{"x":{"data_offsets":[1,96],"shape":[95],"dtype":"U8"},"y":{"data_offsets":[0,1],"shape":[],"dtype":"I8"}} ',
  ),
];
/** Bytes of data behind each header. */
const dataBytes = 96;

const index = {
  metadata: { total_size: 96 },
  weight_map: { 'lm_head.weight': 'model-00001-of-00002.safetensors', b: '../model-00002-of-00002.safetensors' },
};

const config = {
  architectures: ['LlamaForCausalLM'],
  model_type: 'llama',
  hidden_act: 'silu',
  hidden_size: 64,
  intermediate_size: 96,
  num_hidden_layers: 2,
  num_attention_heads: 4,
  num_key_value_heads: 2,
  head_dim: 16,
  vocab_size: 512,
  max_position_embeddings: 256,
  rms_norm_eps: 1e-5,
  rope_theta: 10000,
  tie_word_embeddings: false,
  torch_dtype: 'float16',
  eos_token_id: [2, 3],
};
const scaling = {
  rope_type: 'llama3',
  factor: 8,
  low_freq_factor: 1,
  high_freq_factor: 4,
  original_max_position_embeddings: 64,
};
const mistral = { ...config, architectures: ['MistralForCausalLM'], model_type: 'mistral', sliding_window: 32 };

const uniform = { kind: 'uniform', shape: [32, 64], bits: 3, group_size: 32, offsets: 'zeroCode', scale_dtype: 'F16' };
const planes = { ...uniform, kind: 'planes', offsets: 'real', offset_dtype: 'BF16', group_size: -1 };
const quantization = {
  quant_method: 'lutra',
  format_version: 1,
  bits: 3,
  group_size: 32,
  sym: false,
  recipe: { solver: { method: 'rtn' } },
  modules_to_not_convert: ['lm_head'],
  tensors: {
    'a.weight': uniform,
    'b.weight': { ...planes, sub_branch: { rank: 4, dtype: 'I8' } },
  },
};

const recipe = {
  transforms: [{ method: 'hadamard' }],
  solver: { method: 'gptq', damping: 0.01, actOrder: true },
  grid: { bits: 3, groupSize: 64, symmetric: false },
  finetune: [],
  lowRank: null,
  overrides: [{ match: 'model.layers.*.mlp.*', bits: 4 }],
  allocation: { bitsPerWeight: 3.5, widths: [2, 3, 4] },
};
const shorthand = { method: 'rtn', bits: 4, groupSize: 128 };
const yaml = [
  'method: gptq\nbits: 3\ngroupSize: 64\n',
  'solver: { method: rtn }\ngrid:\n  bits: 4\n  groupSize: -1 # the row\noverrides:\n  - match: "*.down_proj.weight"\n    bits: 2\n',
  'a: |\n  text\nb: >-\n  folded\nc: [1, 2.5, ~, true]\n"d": \'x\'\n',
].map((text) => Buffer.from(text));

const sha256 = 'a'.repeat(64);
const manifest = {
  lutra: { version: '0.1.0', formatVersion: 1, isa: 'scalar' },
  recipe,
  calibration: {
    ...{ sha256, separator: null, samples: 8, heldOut: 0, sequenceLength: 48 },
    ...{ seed: 0, maxBadWindows: 0, tokens: 100 },
  },
  shardBytes: 5e9,
  inputs: { 'config.json': sha256 },
  outputs: { tensors: { 'a.codes': '0123abcd' }, files: { 'model.safetensors': sha256 } },
  layers: [
    {
      ...{ name: 'a', bits: 3, groupSize: 64, relativeError: 0.1, rtnError: 0.2, heldOutError: null, damping: 0.01 },
      ...{ deadColumns: 0, tokens: 64, warnings: [{ kind: 'fewTokens', message: 'few' }] },
    },
  ],
  badWindows: [{ block: 1, window: 2 }],
};

const journal = {
  identity: {
    lutra: provenance(),
    ...{ recipe, shardBytes: 5e9, calibration: manifest.calibration, inputs: manifest.inputs },
  },
  chosen: { recipe, scaleDtypes: { 'a.weight': 'f16' } },
  blocks: [
    {
      layers: manifest.layers,
      transforms: [{ method: 'awq', ratio: 0.5 }],
      finetune: [],
      badWindows: manifest.badWindows,
      tensors: { 'a.codes': 19088743 },
    },
  ],
  activations: { inputs: [1, 2 ** 32 - 1], heldOut: null },
};
const sealed = async (content: object) => ({ crc32c: await checksumOf(content), journal: content });

// Of a process that there cannot be: a change of the host makes it one that may be at work.
const marks = ['released', `4194305-7.0123abcd.89abcdef-${encodeURIComponent(hostname())}`];

/** Every reader of lutra, by name. */
export const readers: Readonly<Record<string, Reader>> = {
  header: {
    seeds: headers,
    read: (bytes) => {
      const fileSize = bytes.length + dataBytes;
      const length = headerLength(bytes, 'fuzz', bytes.length, limits);
      parseHeader(bytes.subarray(lengthBytes, lengthBytes + length), 'fuzz', fileSize, limits);
    },
  },
  // The header's text alone, whose length always fits: most inputs reach the parser.
  'header-text': {
    seeds: headers.map((bytes) => bytes.subarray(lengthBytes)),
    read: (bytes) => parseHeader(bytes, 'fuzz', lengthBytes + bytes.length + dataBytes, limits),
  },
  index: { seeds: json(index, { weight_map: {} }), read: (bytes) => parseShardIndex(bytes, 'fuzz', limits) },
  config: {
    seeds: json(config, { ...config, rope_scaling: scaling }, { ...config, rope_parameters: scaling }, mistral),
    read: (bytes) => buildGraph(parseConfig(object(bytes, 'fuzz'), 'fuzz'), () => true),
  },
  quantization: {
    seeds: json(quantization, { ...quantization, tensors: {} }),
    read: (bytes) => {
      const read = parseQuantizationConfig(object(bytes, 'fuzz'), 'fuzz');
      for (const [name, matrix] of read?.tensors ?? []) bytesOf(name, matrix);
    },
  },
  tokenizer: {
    seeds: json(...tokenizers),
    read: (bytes) => roundTrip(new Tokenizer(object(bytes, 'fuzz'), {}, 'fuzz')),
  },
  'tokenizer-config': {
    seeds: json(
      { bos_token: '<s>', eos_token: { content: '</s>' }, add_bos_token: true, clean_up_tokenization_spaces: true },
      { tokenizer_class: 'LlamaTokenizer', unk_token: '<unk>', legacy: true, added_tokens_decoder: {} },
    ),
    read: (bytes) => roundTrip(new Tokenizer(structuredClone(tokenizers[0]!), object(bytes, 'fuzz'), 'fuzz')),
  },
  'generation-config': {
    seeds: json({ eos_token_id: [1, 2] }, { eos_token_id: 2, do_sample: true }),
    read: (bytes) => eosIdsOf(object(bytes, 'fuzz'), 'fuzz'),
  },
  manifest: {
    seeds: json(manifest, { ...manifest, calibration: null }),
    read: (bytes) => checkManifest(object(bytes, 'fuzz'), 'fuzz'),
  },
  // As it lies on the disk: hardly a change gets past the checksum.
  journal: {
    seeds: json(await sealed(journal)),
    read: (bytes) => contentOf(object(bytes, 'fuzz'), 'fuzz'),
  },
  // As somebody would write it who also knows the checksum.
  'sealed-journal': {
    seeds: json(journal, { ...journal, blocks: [], activations: null }),
    read: async (bytes) => contentOf((await sealed(object(bytes, 'fuzz'))) as JsonObject, 'fuzz'),
  },
  mark: {
    seeds: marks.map((mark) => Buffer.from(`.lutra-job-${mark}`)),
    read: (bytes) => {
      const name = Buffer.from(bytes).toString();
      requireEnded(ownerOf(name) ?? null, 'fuzz', name);
    },
  },
  'recipe-json': {
    seeds: json(recipe, shorthand),
    read: async (bytes) => normalizeRecipe(await parseSettings(bytes, 'fuzz.json')),
  },
  'recipe-yaml': {
    seeds: yaml.slice(0, 2),
    read: async (bytes) => normalizeRecipe(await parseSettings(bytes, 'fuzz.yaml')),
  },
  yaml: { seeds: yaml, read: (bytes) => parseSettings(bytes, 'fuzz.yaml') },
};

function roundTrip(tokenizer: Tokenizer): void {
  const ids = tokenizer.encode('abc aab <s> \u00f6! \u20ac', { bos: true });
  if (!ids.every((id) => Number.isSafeInteger(id) && id >= 0 && id < tokenizer.vocabularySize))
    throw new Error(`ids outside of the vocabulary: ${ids}`);
  tokenizer.decode(ids);
}
