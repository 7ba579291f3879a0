import { copyFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { evaluate } from '../../../lib/evaluation/index.js';
import { loadModel } from '../../../lib/inference/index.js';
import { addon } from '../../../lib/native/index.js';
import { memoryAtRest } from '../../memory-at-rest.js';
import { type TinyOptions, withTinyModel } from '../../tiny-checkpoint.js';

const refusal = (options: TinyOptions) =>
  withTinyModel(options, (dir) =>
    loadModel(dir).then(
      () => null,
      (error) => error,
    ),
  );

describe('loadModel', () => {
  it('refuses checkpoints that contradict their configuration, naming the tensor', async () => {
    const name = 'model.layers.1.mlp.up_proj.weight';
    expect(await refusal({ shapes: { [name]: [48, 31] } })).toMatchObject({
      code: 'LUTRA_E_SHAPE',
      message: expect.stringContaining(name),
      found: '[48, 31]',
      expected: '[48, 32]',
    });
    expect(await refusal({ without: [name] })).toMatchObject({ code: 'LUTRA_E_NOT_FOUND' });
    expect(await refusal({ without: ['lm_head.weight'] })).toMatchObject({
      code: 'LUTRA_E_NOT_FOUND',
      hint: expect.stringContaining('tie_word_embeddings'),
    });
    expect(await refusal({ shapes: { 'model.layers.0.self_attn.q_proj.bias': [32] } })).toMatchObject({
      code: 'LUTRA_E_UNSUPPORTED_MODEL',
    });
    expect(await refusal({ config: { model_type: 'gpt2' } })).toMatchObject({ code: 'LUTRA_E_UNSUPPORTED_MODEL' });
  });

  it('ignores tensors that Llama checkpoints may carry along', async () => {
    expect(await refusal({ shapes: { 'model.layers.0.self_attn.rotary_emb.inv_freq': [4] } })).toBeNull();
  });

  it('refuses a tokenizer with ids beyond the embedding, and directories without one', async () => {
    await withTinyModel({}, async (dir) => {
      await withTinyModel({ config: { vocab_size: 41 } }, async (larger) => {
        copyFileSync(join(larger, 'tokenizer.json'), join(dir, 'tokenizer.json'));
      });
      await expect(loadModel(dir)).rejects.toMatchObject({ code: 'LUTRA_E_SHAPE', found: 'id 40' });
      rmSync(join(dir, 'tokenizer.json'));
      await expect(loadModel(dir)).rejects.toMatchObject({ code: 'LUTRA_E_NOT_FOUND' });
    });
  });

  it('takes the ends of generation_config.json too', async () => {
    await withTinyModel({ config: { eos_token_id: null } }, async (dir) => {
      writeFileSync(join(dir, 'generation_config.json'), '{"eos_token_id": [7, 9]}');
      using model = await loadModel(dir);
      expect([...model.eosIds].sort((a, b) => a - b)).toEqual([2, 7, 9]);
      writeFileSync(join(dir, 'generation_config.json'), '{"eos_token_id": "</s>"}');
      await expect(loadModel(dir)).rejects.toMatchObject({ code: 'LUTRA_E_SHAPE' });
      writeFileSync(join(dir, 'generation_config.json'), 'eos');
      await expect(loadModel(dir)).rejects.toMatchObject({ code: 'LUTRA_E_HEADER' });
    });
  });

  it('takes the processor unless told otherwise', async () => {
    await withTinyModel({}, async (dir) => {
      using model = await loadModel(dir, { device: 'auto' });
      expect(model.device).toBe('cpu');
      await expect(loadModel(dir, { device: 'cuda' })).rejects.toMatchObject({ name: 'LutraDeviceError' });
      await expect(loadModel(dir, { device: 'tpu' as 'cpu' })).rejects.toMatchObject({ code: 'LUTRA_E_OPTION' });
      const refused = (where: string) => ({ code: 'LUTRA_E_OPTION', where });
      await expect(loadModel(dir, { mode: 'best' as 'fast' })).rejects.toMatchObject(refused('loadModel.mode'));
      await expect(model.logits([1], { mode: 'best' as 'fast' })).rejects.toMatchObject(refused('session.mode'));
    });
  });

  it('keeps every matrix once, in the bytes that are stored', async () => {
    await withTinyModel({ dtype: 'BF16', config: { tie_word_embeddings: true, hidden_size: 64 } }, async (dir) => {
      const before = await memoryAtRest();
      const model = await loadModel(dir);
      const parameters = [...model.graph.shapes.values()].reduce(
        (sum, shape) => sum + shape.reduce((a, b) => a * b),
        0,
      );
      expect(addon().nativeMemory() - before).toBe(2 * parameters);
      model.dispose();
      model.dispose();
      expect(addon().nativeMemory()).toBe(before);
      expect(() => model.weights).toThrow(expect.objectContaining({ code: 'LUTRA_E_DISPOSED' }));
      await expect(model.logits([1])).rejects.toMatchObject({ code: 'LUTRA_E_DISPOSED' });
    });
  });

  it('leaves nothing in memory behind generations and evaluations, abandoned ones included', async () => {
    await withTinyModel({}, async (dir) => {
      using model = await loadModel(dir);
      const before = await memoryAtRest();
      for await (const { token } of model.generate('abc', { maxTokens: 20, ignoreEos: true })) if (token >= 0) break;
      (await model.logits([1, 2, 3])).dispose();
      expect(addon().nativeMemory()).toBe(before);
      await expect(model.logits([1, 2], { signal: AbortSignal.abort('enough') })).rejects.toBe('enough');
      expect(addon().nativeMemory()).toBe(before);
      await evaluate(model, { text: 'abcdefghi@@bcdef', separator: '@@', reference: model });
      expect(addon().nativeMemory()).toBe(before);
    });
  });

  it('refuses to open what is no path', async () => {
    for (const dir of [undefined, 42, ''])
      await expect(loadModel(dir as string)).rejects.toMatchObject({ code: 'LUTRA_E_OPTION', where: 'directory' });
  });

  it('rejects with the reason of an abort', async () => {
    await withTinyModel({}, async (dir) => {
      const reason = new Error('enough');
      await expect(loadModel(dir, { signal: AbortSignal.abort(reason) })).rejects.toBe(reason);
    });
  });
});
