import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { parseConfig } from '../../../lib/models/index.js';
import { describeWithShared, sharedModel, sharedModels } from '../../shared-material.js';

const smallest = {
  model_type: 'llama',
  hidden_size: 64,
  intermediate_size: 172,
  num_hidden_layers: 2,
  num_attention_heads: 8,
  vocab_size: 512,
  max_position_embeddings: 256,
};
const parse = (changes: object = {}) => parseConfig({ ...smallest, ...changes }, 'config.json');
const llama3 = {
  rope_type: 'llama3',
  factor: 8,
  low_freq_factor: 1,
  high_freq_factor: 4,
  original_max_position_embeddings: 8192,
};

describe('parseConfig', () => {
  it('fills in what Llama configurations may leave out', () => {
    expect(parse()).toEqual({
      modelType: 'llama',
      hiddenSize: 64,
      intermediateSize: 172,
      layers: 2,
      heads: 8,
      kvHeads: 8,
      headDim: 8,
      vocabularySize: 512,
      context: 256,
      normEpsilon: 1e-6,
      ropeTheta: 10000,
      ropeScaling: { type: 'none' },
      slidingWindow: 0,
      attentionBias: false,
      mlpBias: false,
      tiedEmbeddings: false,
      bosId: null,
      eosIds: [],
    });
  });

  it('reads grouped heads, an explicit head size, biases, ties and both spellings of the element type', () => {
    const config = parse({
      num_key_value_heads: 2,
      head_dim: 12,
      attention_bias: true,
      mlp_bias: true,
      tie_word_embeddings: true,
      dtype: 'bfloat16',
      rms_norm_eps: 1e-5,
    });
    expect(config).toMatchObject({ kvHeads: 2, headDim: 12, attentionBias: true, mlpBias: true, tiedEmbeddings: true });
    expect(parse({ torch_dtype: 'float16' })).toEqual(parse());
  });

  it('takes eos as a number, a list or nothing', () => {
    expect(parse({ eos_token_id: 2 }).eosIds).toEqual([2]);
    expect(parse({ eos_token_id: [3, 4], bos_token_id: 1 })).toMatchObject({ eosIds: [3, 4], bosId: 1 });
    expect(parse({ eos_token_id: null }).eosIds).toEqual([]);
    expect(() => parse({ eos_token_id: 512 })).toThrow(expect.objectContaining({ code: 'LUTRA_E_SHAPE' }));
  });

  it('reads rope scaling under both names and types', () => {
    expect(parse({ rope_scaling: { type: 'linear', factor: 4 } }).ropeScaling).toEqual({ type: 'linear', factor: 4 });
    const scaled = parse({ rope_parameters: { ...llama3, rope_theta: 500000 } });
    expect(scaled.ropeTheta).toBe(500000);
    expect(scaled.ropeScaling).toEqual({
      type: 'llama3',
      factor: 8,
      lowFrequencyFactor: 1,
      highFrequencyFactor: 4,
      originalContext: 8192,
    });
    expect(parse({ rope_scaling: llama3 }).ropeScaling).toEqual(scaled.ropeScaling);
    expect(parse({ rope_parameters: { rope_type: 'default', rope_theta: 5e5 } }).ropeScaling).toEqual({ type: 'none' });
    expect(() => parse({ rope_parameters: llama3, rope_scaling: { type: 'linear', factor: 2 } })).toThrow(
      expect.objectContaining({ code: 'LUTRA_E_UNSUPPORTED_MODEL' }),
    );
  });

  it('reads a sliding window for Mistral only', () => {
    const mistral = { model_type: 'mistral', architectures: ['MistralForCausalLM'] };
    expect(parse({ ...mistral, sliding_window: 32 }).slidingWindow).toBe(32);
    expect(parse({ ...mistral, sliding_window: null }).slidingWindow).toBe(0);
    expect(parse(mistral)).toMatchObject({ slidingWindow: 4096, kvHeads: 8 });
  });

  it.each([
    ['model_type', { model_type: 'qwen2' }],
    ['model_type', { model_type: undefined }],
    ['architectures', { architectures: ['LlamaForSequenceClassification'] }],
    ['architectures', { architectures: ['MistralForCausalLM'] }],
    ['hidden_act', { hidden_act: 'gelu' }],
    ['rope_type', { rope_scaling: { rope_type: 'yarn', factor: 4 } }],
    ['type', { rope_scaling: { type: 'dynamic', factor: 2 } }],
    ['rope_type', { rope_scaling: { factor: 2 } }],
    ['rope_type', { rope_parameters: { full_attention: { rope_type: 'default' } } }],
    ['quantization_config', { quantization_config: { quant_method: 'gptq', bits: 4 } }],
    ['torch_dtype', { torch_dtype: 'float8_e4m3fn' }],
    ['partial_rotary_factor', { partial_rotary_factor: 0.5 }],
    ['sliding_window', { sliding_window: 32 }],
    ['layer_types', { model_type: 'mistral', sliding_window: 8, layer_types: ['sliding_attention', 'full_attention'] }],
    ['attention_bias', { model_type: 'mistral', attention_bias: true }],
    ['tie_word_embeddings', { tie_word_embeddings: 'yes' }],
  ])('refuses an unsupported %s by name: %j', (field, changes) => {
    expect(() => parse(changes)).toThrow(
      expect.objectContaining({
        code: 'LUTRA_E_UNSUPPORTED_MODEL',
        message: expect.stringContaining(`cannot use ${field}`),
        where: expect.stringContaining('config.json'),
      }),
    );
  });

  it.each([
    ['hidden_size', { hidden_size: 0 }],
    ['hidden_size', { hidden_size: 2 ** 40 }],
    ['hidden_size', { hidden_size: 65 }],
    ['hidden_size', { hidden_size: '64' }],
    ['intermediate_size', { intermediate_size: -1 }],
    ['num_hidden_layers', { num_hidden_layers: 1e9 }],
    ['num_hidden_layers', { num_hidden_layers: 1.5 }],
    ['num_key_value_heads', { num_key_value_heads: 3 }],
    ['vocab_size', { vocab_size: null }],
    ['max_position_embeddings', { max_position_embeddings: 2 ** 53 }],
    ['rms_norm_eps', { rms_norm_eps: -1 }],
    ['rope_theta', { rope_theta: 0 }],
    ['rope_theta', { rope_theta: 1e-300 }],
    ['rope_theta', { rope_theta: 0.99 }],
    ['rope_theta', { rope_theta: 1.01e12 }],
    ['rms_norm_eps', { rms_norm_eps: 1e-300 }],
    ['factor', { rope_scaling: { type: 'linear', factor: 1e-9 } }],
    ['low_freq_factor', { rope_scaling: { ...llama3, low_freq_factor: 1e-300 } }],
    ['factor', { rope_scaling: { type: 'linear', factor: 0 } }],
    ['high_freq_factor', { rope_scaling: { ...llama3, high_freq_factor: 1 } }],
    ['original_max_position_embeddings', { rope_scaling: { ...llama3, original_max_position_embeddings: null } }],
    ['head_dim', { head_dim: 7 }],
  ])('refuses an absurd or missing %s: %j', (field, changes) => {
    expect(() => parse(changes)).toThrow(
      expect.objectContaining({ code: 'LUTRA_E_SHAPE', message: expect.stringContaining(field) }),
    );
  });

  it('refuses what is not an object', () => {
    for (const raw of [null, [], 'llama', 7])
      expect(() => parseConfig(raw, 'config.json')).toThrow(
        expect.objectContaining({ code: 'LUTRA_E_UNSUPPORTED_MODEL' }),
      );
  });
});

describeWithShared('configurations of real models', () => {
  it.each(sharedModels)('reads %s', (name) => {
    const raw: unknown = JSON.parse(readFileSync(join(sharedModel(name), 'config.json'), 'utf8'));
    expect(parseConfig(raw, name)).toMatchObject({ kvHeads: 4, heads: 8, tiedEmbeddings: true });
  });
});
