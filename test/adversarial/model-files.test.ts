import { execFileSync } from 'node:child_process';
import { appendFileSync, mkdirSync, rmSync, symlinkSync, truncateSync, utimesSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { beforeEach, describe, expect, test } from 'vitest';
import { openSafetensors } from '../../lib/formats/index.js';
import { generationEosIds } from '../../lib/inference/generation-config.js';
import { loadTokenizer } from '../../lib/inference/index.js';
import { buildGraph, parseConfig } from '../../lib/models/index.js';
import { codeOf, failureOf, fileBytes, scratchDirectory } from '../lib/formats/safetensors-bytes.js';
import { tokenizers } from './fuzz/tokenizer-seeds.js';

const scratch = scratchDirectory();
const directory = join(scratch, 'model');
const put = (name: string, content: string | Uint8Array) => writeFileSync(join(directory, name), content);
beforeEach(() => {
  rmSync(directory, { recursive: true, force: true });
  mkdirSync(directory);
  put('tokenizer.json', JSON.stringify(tokenizers[0]));
});

const nested = (levels: number) => `${'{"a":'.repeat(levels - 1)}{}${'}'.repeat(levels - 1)}`;
const readers = {
  'tokenizer.json': () => loadTokenizer(directory),
  'tokenizer_config.json': () => loadTokenizer(directory),
  'generation_config.json': () => generationEosIds(directory),
} as const;

describe.each(Object.keys(readers) as (keyof typeof readers)[])('%s', (name) => {
  const read = readers[name];

  test.each([
    ['nothing', ''],
    ['a null', 'null'],
    ['a list', '[]'],
    ['a byte order mark', '\ufeff{}'],
    ['a duplicate key', '{"a":1,"a":2}'],
    ['__proto__', '{"__proto__":{"eos_token_id":7}}'],
    ['__proto__ deep inside', '{"a":[{"__proto__":1}]}'],
    ['half a surrogate pair', '{"a":"\\ud800"}'],
    ['bytes that are not UTF-8', Buffer.from([0x7b, 0x22, 0xff, 0x22, 0x3a, 0x31, 0x7d])],
    ['a hundred thousand levels', nested(1e5)],
  ])('of %s', async (_what, content) => {
    put(name, content);
    const error = await failureOf(read);
    expect(error.code).toBe('LUTRA_E_HEADER');
    expect(error.where).toContain(join(directory, name));
  });

  test('nested to the limit, and a level more', async () => {
    const code = async (levels: number) => {
      put(name, nested(levels));
      return read().then(
        () => 'read',
        (error) => error.code,
      );
    };
    // A tokenizer needs more than that, and is asked for it only when the file was read.
    const within = name === 'tokenizer.json' ? 'LUTRA_E_UNSUPPORTED_MODEL' : 'read';
    expect(await Promise.resolve([await code(63), await code(64), await code(65)])).toEqual([
      within,
      within,
      'LUTRA_E_HEADER',
    ]);
  });

  test('that is a pipe, a directory, or a link out of the model', async () => {
    const path = join(directory, name);
    rmSync(path, { force: true });
    execFileSync('mkfifo', [path]);
    expect(await codeOf(read)).toBe('LUTRA_E_IO');
    rmSync(path);
    mkdirSync(path);
    expect(await codeOf(read)).toBe('LUTRA_E_IO');
    rmSync(path, { recursive: true });
    writeFileSync(join(scratch, 'outside.json'), '{}');
    symlinkSync(join(scratch, 'outside.json'), path);
    expect(await codeOf(read)).toBe('LUTRA_E_HEADER');
  });

  test('of terabytes that are not there', async () => {
    put(name, '{}');
    truncateSync(join(directory, name), 2 ** 40);
    expect((await failureOf(read)).message).toContain('larger than it may be');
  });
});

test('a generation_config.json of ids to the limit, and one more', async () => {
  const ids = (count: number) => {
    put('generation_config.json', JSON.stringify({ eos_token_id: Array(count).fill(1) }));
    return generationEosIds(directory);
  };
  expect([(await ids(1023)).length, (await ids(1024)).length]).toEqual([1023, 1024]);
  expect(await codeOf(() => ids(1025))).toBe('LUTRA_E_SHAPE');
});

describe('the numbers of a config.json', () => {
  const config = {
    model_type: 'llama',
    hidden_size: 64,
    intermediate_size: 172,
    num_hidden_layers: 2,
    num_attention_heads: 8,
    head_dim: 8,
    vocab_size: 512,
    max_position_embeddings: 256,
  };
  const limits = {
    hidden_size: 2 ** 17,
    intermediate_size: 2 ** 20,
    num_hidden_layers: 1024,
    num_attention_heads: 1024,
    num_key_value_heads: 8,
    head_dim: 1024,
    vocab_size: 2 ** 22,
    max_position_embeddings: 2 ** 24,
  };

  test.each(Object.entries(limits))('%s up to %i and no further', async (field, limit) => {
    const graph = (value: unknown) => buildGraph(parseConfig({ ...config, [field]: value }, 'c.json'), () => true);
    // Heads are shared and rotated in pairs, so that the number below a limit need not be one.
    const below = field === 'head_dim' || field === 'num_key_value_heads' ? limit / 2 : limit - 1;
    for (const value of [below, limit]) expect(graph(value).shapes.size).toBeGreaterThan(10);
    for (const value of [limit + 1, 2 ** 31, 2 ** 53, 1e300, 0, -1, 0.5, '8', [8], {}, true]) {
      const failure = await failureOf(() => graph(value));
      expect([failure.code, failure.where]).toEqual(['LUTRA_E_SHAPE', 'c.json']);
    }
  });
});

describe('weights in another format', () => {
  test.each([
    ['a zip of PyTorch', 'PK\x03\x04\x00\x00\x08\x08\x00\x00', /pickle.*safe_serialization=True/],
    ['a bare pickle', '\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.', /pickle.*safe_serialization=True/],
    ['GGUF', 'GGUF\x03\x00\x00\x00\x10\x00\x00\x00', /GGUF.*original checkpoint/],
    ['a pointer of Git LFS', 'version https://git-lfs.github.com/spec/v1\n', /pointer of Git LFS.*git lfs pull/],
  ])('%s are named, with what to do', async (_name, bytes, words) => {
    put('model.safetensors', Buffer.from(bytes, 'latin1'));
    const error = await failureOf(() => openSafetensors(directory));
    expect(error.code).toBe('LUTRA_E_HEADER');
    expect(`${error.message} ${error.hint}`).toMatch(words);
  });
});

describe('weights that are written to while they are open', () => {
  const path = join(directory, 'model.safetensors');
  beforeEach(() => put('model.safetensors', fileBytes({ x: { dtype: 'U8', shape: [64], data_offsets: [0, 64] } }, 64)));

  test.each([
    ['grows', () => appendFileSync(path, 'more'), 'LUTRA_E_IO'],
    ['is written in place', () => utimesSync(path, 1, 1), 'LUTRA_E_IO'],
    ['shrinks', () => truncateSync(path, 80), 'LUTRA_E_TRUNCATED'],
  ] as const)('a file that %s gives no tensor any more', async (_what, change, code) => {
    await using reader = await openSafetensors(path);
    (await reader.load('x')).dispose();
    change();
    expect(await codeOf(() => reader.load('x'))).toBe(code);
    expect(
      await codeOf(async () => {
        for await (const piece of reader.bytes('x')) expect(piece.length).toBe(64);
      }),
    ).toBe(code);
  });

  test('a file that is replaced is read as it was opened', async () => {
    await using reader = await openSafetensors(path);
    rmSync(path);
    put('model.safetensors', 'another');
    using tensor = await reader.load('x');
    expect(tensor.elements).toBe(64);
  });
});
