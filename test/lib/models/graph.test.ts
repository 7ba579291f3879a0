import { describe, expect, it } from 'vitest';
import { buildGraph, checkNames, checkTensor, parseConfig } from '../../../lib/models/index.js';

const config = (changes: object = {}) =>
  parseConfig(
    {
      model_type: 'llama',
      hidden_size: 24,
      intermediate_size: 40,
      num_hidden_layers: 2,
      num_attention_heads: 4,
      num_key_value_heads: 2,
      head_dim: 10,
      vocab_size: 50,
      max_position_embeddings: 32,
      ...changes,
    },
    'config.json',
  );

describe('buildGraph', () => {
  it('names every linear layer with its shape', () => {
    const [block] = buildGraph(config()).blocks;
    expect(block!.linears.map(({ name, outFeatures, inFeatures }) => [name, outFeatures, inFeatures])).toEqual([
      ['model.layers.0.self_attn.q_proj.weight', 40, 24],
      ['model.layers.0.self_attn.k_proj.weight', 20, 24],
      ['model.layers.0.self_attn.v_proj.weight', 20, 24],
      ['model.layers.0.self_attn.o_proj.weight', 24, 40],
      ['model.layers.0.mlp.gate_proj.weight', 40, 24],
      ['model.layers.0.mlp.up_proj.weight', 40, 24],
      ['model.layers.0.mlp.down_proj.weight', 24, 40],
    ]);
  });

  it('gives linears that share an input the same tap, one width a tap', () => {
    const graph = buildGraph(config());
    const widths = new Map<string, Set<number>>();
    for (const { input, inFeatures } of graph.blocks.flatMap((block) => block.linears))
      widths.set(input, (widths.get(input) ?? new Set()).add(inFeatures));
    expect([...widths.values()].every((set) => set.size === 1)).toBe(true);
    expect([...widths.keys()].filter((tap) => tap.startsWith('model.layers.1.'))).toEqual([
      'model.layers.1.self_attn.input',
      'model.layers.1.self_attn.o_proj.input',
      'model.layers.1.mlp.input',
      'model.layers.1.mlp.down_proj.input',
    ]);
  });

  it('covers the tensors of its blocks and adds biases where they are announced', () => {
    const graph = buildGraph(config({ attention_bias: true, mlp_bias: true }));
    for (const block of graph.blocks) for (const name of block.tensors) expect(graph.shapes.has(name)).toBe(true);
    expect(graph.shapes.get('model.layers.1.self_attn.o_proj.bias')).toEqual([24]);
    expect(graph.shapes.get('model.layers.1.mlp.up_proj.bias')).toEqual([40]);
    expect(buildGraph(config()).blocks[0]!.tensors).toHaveLength(9);
    expect(graph.blocks[0]!.tensors).toHaveLength(16);
  });

  it('finds tied weights under either alias', () => {
    const tied = config({ tie_word_embeddings: true });
    const onlyHead = buildGraph(tied, (name) => name === 'lm_head.weight');
    expect([onlyHead.embedding, onlyHead.lmHead]).toEqual(['lm_head.weight', 'lm_head.weight']);
    for (const graph of [buildGraph(tied), buildGraph(tied, (name) => name !== 'lm_head.weight')])
      expect([graph.embedding, graph.lmHead]).toEqual(['model.embed_tokens.weight', 'model.embed_tokens.weight']);
    const untied = buildGraph(config());
    expect([untied.embedding, untied.lmHead]).toEqual(['model.embed_tokens.weight', 'lm_head.weight']);
  });
});

describe('checks against a checkpoint', () => {
  const graph = buildGraph(config());
  const held = ({ without = '', plus = [] as string[] }) =>
    new Map([...graph.shapes.keys(), ...plus].filter((name) => name !== without).map((name) => [name, null]));

  it('names a missing tensor', () => {
    const missing = 'model.layers.1.mlp.up_proj.weight';
    expect(() => checkNames(graph, held({ without: missing }), 'dir')).toThrow(
      expect.objectContaining({ code: 'LUTRA_E_NOT_FOUND', message: expect.stringContaining(missing) }),
    );
  });

  it('refuses a bias that config.json does not announce', () => {
    const bias = 'model.layers.0.self_attn.q_proj.bias';
    expect(() => checkNames(graph, held({ plus: [bias] }), 'dir')).toThrow(
      expect.objectContaining({ code: 'LUTRA_E_UNSUPPORTED_MODEL', message: expect.stringContaining('q_proj.bias') }),
    );
    expect(() => checkNames(graph, graph.shapes, 'dir')).not.toThrow();
  });

  it('refuses layers that config.json does not count', () => {
    for (const [name, expected] of [
      ['model.layers.2.mlp.up_proj.weight', 3],
      ['model.layers.11.input_layernorm.weight', 12],
    ] as const)
      expect(() => checkNames(graph, held({ plus: [name] }), 'dir')).toThrow(
        expect.objectContaining({
          code: 'LUTRA_E_SHAPE',
          where: expect.stringContaining('num_hidden_layers'),
          found: 2,
          expected,
        }),
      );
    const buffers = ['model.layers.1.self_attn.rotary_emb.inv_freq', 'model.rotary_emb.inv_freq'];
    expect(() => checkNames(graph, held({ plus: buffers }), 'dir')).not.toThrow();
  });

  it('names a tensor whose shape contradicts config.json', () => {
    const name = 'model.layers.0.self_attn.k_proj.weight';
    expect(() => checkTensor(graph, { name, shape: [20, 24], dtype: 'F16' }, 'dir')).not.toThrow();
    for (const shape of [[24, 20], [480], [20, 24, 1]])
      expect(() => checkTensor(graph, { name, shape, dtype: null }, 'dir')).toThrow(
        expect.objectContaining({ code: 'LUTRA_E_SHAPE', found: `[${shape.join(', ')}]`, expected: '[20, 24]' }),
      );
  });
});
