import { mkdirSync, readFileSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { openSafetensors, type SafetensorsReader } from '../../../../lib/formats/index.js';
import { describeWithShared, sharedModel, sharedModels } from '../../../shared-material.js';
import { codeOf, failureOf, fileBytes, scratchDirectory } from '../safetensors-bytes.js';

const scratch = scratchDirectory();
let made = 0;

function directoryOf(files: Record<string, Uint8Array | string>): string {
  const directory = join(scratch, `model-${made++}`);
  mkdirSync(directory);
  for (const [name, content] of Object.entries(files)) writeFileSync(join(directory, name), content);
  return directory;
}

const data = Uint8Array.from({ length: 64 }, (_, i) => (i * 37) % 251);
const tensors: Record<string, { dtype: string; shape: number[]; data_offsets: [number, number] }> = {
  a: { dtype: 'F32', shape: [2, 3], data_offsets: [0, 24] },
  b: { dtype: 'BF16', shape: [4], data_offsets: [24, 32] },
  c: { dtype: 'F16', shape: [], data_offsets: [32, 34] },
  d: { dtype: 'U8', shape: [0, 5], data_offsets: [34, 34] },
  e: { dtype: 'I64', shape: [3], data_offsets: [34, 58] },
  f: { dtype: 'U8', shape: [6], data_offsets: [58, 64] },
};
const header = { __metadata__: { 'model.embed_tokens.weight': 'lm_head.weight' }, ...tensors };

async function loadedBytes(reader: SafetensorsReader, name: string): Promise<number[]> {
  using tensor = await reader.load(name);
  const values = tensor.read();
  return [...new Uint8Array(values.buffer, values.byteOffset, values.byteLength)];
}

async function piecedBytes(reader: SafetensorsReader, name: string): Promise<number[]> {
  const all: number[] = [];
  for await (const piece of reader.bytes(name)) all.push(...piece);
  return all;
}

test('one file: every type comes back with its own bytes', async () => {
  const directory = directoryOf({ 'model.safetensors': fileBytes(header, data) });
  for (const path of [directory, join(directory, 'model.safetensors')]) {
    await using reader = await openSafetensors(path);
    expect(reader.metadata.get('model.embed_tokens.weight')).toBe('lm_head.weight');
    for (const [name, { dtype, data_offsets }] of Object.entries(tensors)) {
      const expected = [...data.subarray(...data_offsets)];
      expect(await piecedBytes(reader, name)).toEqual(expected);
      if (dtype !== 'I64') expect(await loadedBytes(reader, name)).toEqual(expected);
    }
    using scalar = await reader.load('c');
    expect([scalar.dtype, scalar.shape]).toEqual(['f16', [1]]);
    using empty = await reader.load('d');
    expect(empty.shape).toEqual([0, 5]);
  }
});

test('what cannot be loaded says so', async () => {
  const directory = directoryOf({ 'model.safetensors': fileBytes(header, data) });
  const reader = await openSafetensors(directory);
  const error = await failureOf(() => reader.load('e'));
  expect([error.code, error.found]).toEqual(['LUTRA_E_DTYPE', 'I64']);
  expect(error.where).toContain('tensor "e"');
  expect(await codeOf(() => reader.load('g'))).toBe('LUTRA_E_NOT_FOUND');
  await expect(reader.load('a', { signal: AbortSignal.abort(new Error('stop')) })).rejects.toThrow('stop');
  await reader.close();
  await reader.close();
  expect(await codeOf(() => reader.load('a'))).toBe('LUTRA_E_DISPOSED');
});

test('close waits for running loads', async () => {
  const directory = directoryOf({ 'model.safetensors': fileBytes(header, data) });
  const reader = await openSafetensors(directory);
  const loads = [reader.load('a'), reader.load('f')];
  await reader.close();
  for (const load of loads) (await load).dispose();
});

describe('shards', () => {
  const shard = (name: string, bytes: number) =>
    fileBytes({ [name]: { dtype: 'U8', shape: [bytes], data_offsets: [0, bytes] } }, data.subarray(0, bytes));
  const index = (weightMap: Record<string, unknown>) =>
    JSON.stringify({ metadata: { total_size: 9 }, weight_map: weightMap });

  test('are read as one', async () => {
    const directory = directoryOf({
      'one.safetensors': shard('x', 5),
      'two.safetensors': shard('y', 7),
      'model.safetensors.index.json': index({ y: 'two.safetensors', x: 'one.safetensors' }),
    });
    await using reader = await openSafetensors(directory);
    expect([...reader.entries.keys()].sort()).toEqual(['x', 'y']);
    expect(await loadedBytes(reader, 'y')).toEqual([...data.subarray(0, 7)]);
  });

  const broken: [string, Record<string, Uint8Array | string>, string, RegExp][] = [
    [
      'a tensor that its shard lacks',
      { 'model.safetensors.index.json': index({ x: 'one', y: 'one' }) },
      'LUTRA_E_NOT_FOUND',
      /"y"/,
    ],
    [
      'a tensor in another shard',
      { two: shard('y', 1), 'model.safetensors.index.json': index({ x: 'two', y: 'one' }) },
      'LUTRA_E_NOT_FOUND',
      /"(x|y)"/,
    ],
    [
      'a tensor that the index lacks',
      { two: shard('y', 1), 'model.safetensors.index.json': index({ x: 'one', z: 'two' }) },
      'LUTRA_E_NOT_FOUND',
      /"z"/,
    ],
    [
      'a tensor that only its shard knows',
      {
        two: fileBytes(
          {
            y: { dtype: 'U8', shape: [1], data_offsets: [0, 1] },
            z: { dtype: 'U8', shape: [1], data_offsets: [1, 2] },
          },
          2,
        ),
        'model.safetensors.index.json': index({ x: 'one', y: 'two' }),
      },
      'LUTRA_E_HEADER',
      /"z"/,
    ],
    [
      'a tensor in two shards',
      { two: shard('x', 1), 'model.safetensors.index.json': index({ x: 'one', y: 'two' }) },
      'LUTRA_E_HEADER',
      /another file/,
    ],
    [
      'a shard that is missing',
      { 'model.safetensors.index.json': index({ x: 'three' }) },
      'LUTRA_E_NOT_FOUND',
      /three/,
    ],
    [
      'a shard that is a directory',
      { 'model.safetensors.index.json': index({ x: '.' }) },
      'LUTRA_E_HEADER',
      /plain file name/,
    ],
    ['an index without a map', { 'model.safetensors.index.json': '{"metadata":{}}' }, 'LUTRA_E_HEADER', /weight_map/],
    [
      'an index that maps to numbers',
      { 'model.safetensors.index.json': index({ x: 1 }) },
      'LUTRA_E_HEADER',
      /a string/,
    ],
    [
      'an index with a duplicate',
      { 'model.safetensors.index.json': '{"weight_map":{"x":"one","x":"one"}}' },
      'LUTRA_E_HEADER',
      /twice/,
    ],
    ['a file without tensors', { 'pytorch_model.bin': 'x' }, 'LUTRA_E_NOT_FOUND', /pickle/],
  ];
  test.each(broken)('%s', async (_name, files, code, words) => {
    const error = await failureOf(() => openSafetensors(directoryOf({ one: shard('x', 4), ...files })));
    expect(error.code).toBe(code);
    expect(error.message).toMatch(words);
  });

  test('the limits hold over all shards together', async () => {
    const files = {
      one: shard('x', 1),
      two: shard('y', 1),
      'model.safetensors.index.json': index({ x: 'one', y: 'two' }),
    };
    const directory = directoryOf(files);
    await (await openSafetensors(directory, { tensors: 2, shards: 2 })).close();
    expect(await codeOf(() => openSafetensors(directory, { tensors: 1 }))).toBe('LUTRA_E_HEADER');
    expect(await codeOf(() => openSafetensors(directory, { shards: 1 }))).toBe('LUTRA_E_HEADER');
    expect(await codeOf(() => openSafetensors(directory, { shard: 1 } as object))).toBe('LUTRA_E_OPTION');
  });
});

test('a file that shrinks between opening and loading is truncated, not read as zeros', async () => {
  const directory = directoryOf({ 'model.safetensors': fileBytes(header, data) });
  const path = join(directory, 'model.safetensors');
  await using reader = await openSafetensors(directory);
  truncateSync(path, readFileSync(path).length - 3);
  const error = await failureOf(() => reader.load('f'));
  expect(error.code).toBe('LUTRA_E_TRUNCATED');
  expect(error.where).toContain('tensor "f"');
  expect(await codeOf(() => piecedBytes(reader, 'f'))).toBe('LUTRA_E_TRUNCATED');
  expect(await codeOf(() => reader.load('a')), 'nor is what stands before the cut trusted').toBe('LUTRA_E_TRUNCATED');
});

describeWithShared('the shared models', () => {
  test.each(sharedModels)('%s', async (name) => {
    await using reader = await openSafetensors(sharedModel(name));
    const file = readFileSync(join(sharedModel(name), 'model.safetensors'));
    const plain = JSON.parse(file.subarray(8, 8 + file.readUInt32LE(0)).toString()) as Record<
      string,
      { dtype: string; shape: number[]; data_offsets: [number, number] }
    >;
    const dataBegin = 8 + file.readUInt32LE(0);
    delete plain.__metadata__;
    expect([...reader.entries.keys()].sort()).toEqual(Object.keys(plain).sort());
    for (const [
      tensorName,
      {
        shape,
        data_offsets: [begin, end],
      },
    ] of Object.entries(plain)) {
      using tensor = await reader.load(tensorName);
      expect(tensor.shape).toEqual(shape);
      const values = tensor.read();
      const bytes = Buffer.from(values.buffer, values.byteOffset, values.byteLength);
      expect(bytes.equals(file.subarray(dataBegin + begin, dataBegin + end))).toBe(true);
    }
  });
});
