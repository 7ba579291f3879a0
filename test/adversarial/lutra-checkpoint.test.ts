import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test, vi } from 'vitest';
import { LutraError } from '../../lib/errors.js';
import {
  CheckpointWriter,
  defaultLimits,
  type JsonObject,
  planCheckpoint,
  type QuantizedEntry,
  readCheckpoint,
} from '../../lib/formats/index.js';
import { nativeMemory } from '../../lib/native/index.js';
import { Tensor } from '../../lib/tensor/index.js';
import { codeOf, failureOf, fileBytes, scratchDirectory, seeded } from '../lib/formats/safetensors-bytes.js';
import { entryOf, qProj, recipe, seededMatrix, upProj, writeModel } from '../lib/formats/tiny-model.js';
import { memoryAtRest } from '../memory-at-rest.js';

const scratch = scratchDirectory();
let made = 0;
const fresh = (): string => join(scratch, `${made++}`);

/** A whole checkpoint of a uniform and a planes matrix, to break; the first with a sub-branch where one is asked for. */
async function whole(subBranch?: QuantizedEntry['subBranch']): Promise<{
  directory: string;
  config: JsonObject;
  quantization: JsonObject;
  entry: JsonObject;
}> {
  const directory = fresh();
  await using source = await readCheckpoint(writeModel(fresh()));
  const quantized = new Map([
    [qProj, entryOf({}, 'f16', subBranch)],
    [upProj, entryOf({ rows: 130, bits: 2, kind: 'planes', offsets: 'real' })],
  ]);
  const plan = await planCheckpoint({ source, quantized, recipe });
  await using writer = await CheckpointWriter.create(plan, directory);
  for (const [name, matrixEntry] of quantized) {
    using matrix = seededMatrix(matrixEntry, 3);
    await writer.put(name, matrix);
  }
  await writer.finish();
  const config = JSON.parse(readFileSync(join(directory, 'config.json'), 'utf8')) as JsonObject;
  const quantization = config.quantization_config as JsonObject;
  return { directory, config, quantization, entry: (quantization.tensors as JsonObject)[qProj] as JsonObject };
}

type Whole = Awaited<ReturnType<typeof whole>>;
const cases: [string, (whole: Whole) => void, string, RegExp][] = [
  [
    'a newer version',
    ({ quantization }) => (quantization.format_version = 2),
    'LUTRA_E_FORMAT_VERSION',
    /found 2, expected at most 1/,
  ],
  [
    'a newer version with fields of its own',
    ({ quantization }) => Object.assign(quantization, { format_version: 3, more: 1 }),
    'LUTRA_E_FORMAT_VERSION',
    /3/,
  ],
  ['version 0', ({ quantization }) => (quantization.format_version = 0), 'LUTRA_E_HEADER', /format_version/],
  ['a version as text', ({ quantization }) => (quantization.format_version = '1'), 'LUTRA_E_HEADER', /format_version/],
  ['no version', ({ quantization }) => delete quantization.format_version, 'LUTRA_E_HEADER', /format_version/],
  ['gptq', ({ quantization }) => (quantization.quant_method = 'gptq'), 'LUTRA_E_UNSUPPORTED_MODEL', /"gptq"/],
  [
    'no word',
    ({ quantization }) => (quantization.quant_method = { toString: 1 }),
    'LUTRA_E_UNSUPPORTED_MODEL',
    /toString/,
  ],
  ['no method', ({ quantization }) => delete quantization.quant_method, 'LUTRA_E_UNSUPPORTED_MODEL', /none/],
  ['a method that is a list', ({ config }) => (config.quantization_config = []), 'LUTRA_E_UNSUPPORTED_MODEL', /none/],
  ['an unknown field', ({ quantization }) => (quantization.more = 1), 'LUTRA_E_HEADER', /more/],
  ['no tensors', ({ quantization }) => delete quantization.tensors, 'LUTRA_E_HEADER', /tensors/],
  ['an unknown field of an entry', ({ entry }) => (entry.more = 1), 'LUTRA_E_HEADER', /q_proj/],
  [
    'an entry that is null',
    ({ quantization }) => ((quantization.tensors as JsonObject)[qProj] = null),
    'LUTRA_E_HEADER',
    /q_proj/,
  ],
  [
    'a sub-branch of too much rank',
    ({ entry }) => (entry.sub_branch = { rank: 71, dtype: 'F16' }),
    'LUTRA_E_SHAPE',
    /rank.*found 71, expected 1 to 70/,
  ],
  [
    'a sub-branch in F32',
    ({ entry }) => (entry.sub_branch = { rank: 4, dtype: 'F32' }),
    'LUTRA_E_HEADER',
    /sub_branch/,
  ],
  ['a sub-branch without rank', ({ entry }) => (entry.sub_branch = { dtype: 'F16' }), 'LUTRA_E_HEADER', /rank/],
  [
    'a sub-branch that is not stored',
    ({ entry }) => (entry.sub_branch = { rank: 4, dtype: 'I8' }),
    'LUTRA_E_NOT_FOUND',
    /q_proj\.sub_a/,
  ],
  ['a reserved kind', ({ entry }) => (entry.kind = 'codebook'), 'LUTRA_E_UNSUPPORTED_MODEL', /codebook/],
  ['an unknown kind', ({ entry }) => (entry.kind = 'trellis'), 'LUTRA_E_HEADER', /kind/],
  ['unknown offsets', ({ entry }) => (entry.offsets = 'zero'), 'LUTRA_E_HEADER', /offsets/],
  ['0 bits', ({ entry }) => (entry.bits = 0), 'LUTRA_E_HEADER', /bits/],
  ['9 bits', ({ entry }) => (entry.bits = 9), 'LUTRA_E_BITS', /9/],
  ['a group of 0', ({ entry }) => (entry.group_size = 0), 'LUTRA_E_GROUP_SIZE', /found 0/],
  ['a group of 48', ({ entry }) => (entry.group_size = 48), 'LUTRA_E_GROUP_SIZE', /found 48/],
  ['a negative group', ({ entry }) => (entry.group_size = -32), 'LUTRA_E_GROUP_SIZE', /-32/],
  ['half a group', ({ entry }) => (entry.group_size = 32.5), 'LUTRA_E_HEADER', /group_size/],
  ['no rows', ({ entry }) => (entry.shape = [0, 70]), 'LUTRA_E_HEADER', /shape/],
  ['three dimensions', ({ entry }) => (entry.shape = [81, 70, 1]), 'LUTRA_E_HEADER', /shape/],
  ['sizes that overflow', ({ entry }) => (entry.shape = [2 ** 40, 2 ** 40]), 'LUTRA_E_SHAPE', /q_proj/],
  [
    'more rows than stored',
    ({ entry }) => (entry.shape = [97, 70]),
    'LUTRA_E_SHAPE',
    /q_proj\.codes.*found \[3456\], expected \[4032\]/,
  ],
  ['fewer columns than stored', ({ entry }) => (entry.shape = [81, 32]), 'LUTRA_E_SHAPE', /q_proj\.codes/],
  ['more bits than stored', ({ entry }) => (entry.bits = 4), 'LUTRA_E_SHAPE', /q_proj\.codes/],
  ['another group than stored', ({ entry }) => (entry.group_size = 16), 'LUTRA_E_SHAPE', /q_proj\.scales/],
  [
    'another scale than stored',
    ({ entry }) => (entry.scale_dtype = 'BF16'),
    'LUTRA_E_DTYPE',
    /q_proj\.scales.*found F16, expected BF16/,
  ],
  ['a scale of bytes', ({ entry }) => (entry.scale_dtype = 'U8'), 'LUTRA_E_HEADER', /scale_dtype/],
  [
    'real offsets instead of zero codes',
    ({ entry }) => Object.assign(entry, { offsets: 'real', offset_dtype: 'F16' }),
    'LUTRA_E_DTYPE',
    /q_proj\.offsets/,
  ],
  ['real offsets of no type', ({ entry }) => (entry.offsets = 'real'), 'LUTRA_E_HEADER', /offset_dtype/],
  ['a type of no offsets', ({ entry }) => (entry.offset_dtype = 'F16'), 'LUTRA_E_HEADER', /offset_dtype/],
  ['offsets that the entry denies', ({ entry }) => (entry.offsets = 'none'), 'LUTRA_E_HEADER', /q_proj\.offsets/],
  ['planes of zero codes', ({ entry }) => (entry.kind = 'planes'), 'LUTRA_E_OPTION', /zero codes/],
  [
    'a planes matrix called uniform',
    ({ quantization }) => (((quantization.tensors as JsonObject)[upProj] as JsonObject).kind = 'uniform'),
    'LUTRA_E_NOT_FOUND',
    /up_proj\.scales/,
  ],
  [
    'a matrix that is not stored',
    ({ quantization, entry }) => ((quantization.tensors as JsonObject)['model.x.weight'] = entry),
    'LUTRA_E_NOT_FOUND',
    /model\.x\.codes/,
  ],
  [
    'a matrix stored twice',
    ({ quantization, entry }) => ((quantization.tensors as JsonObject)['model.norm.weight'] = entry),
    'LUTRA_E_HEADER',
    /model\.norm\.weight/,
  ],
  [
    'a name without weight',
    ({ quantization, entry }) => ((quantization.tensors as JsonObject).x = entry),
    'LUTRA_E_HEADER',
    /"x"/,
  ],
  ['a recipe that is text', ({ quantization }) => (quantization.recipe = 'rtn'), 'LUTRA_E_HEADER', /recipe/],
];

describe('an entry that contradicts what is stored', () => {
  test.each(cases)('%s', async (_name, change, code, words) => {
    const broken = await whole();
    change(broken);
    writeFileSync(join(broken.directory, 'config.json'), JSON.stringify(broken.config));
    const error = await failureOf(() => readCheckpoint(broken.directory));
    expect(error.code).toBe(code);
    expect(error.message).toMatch(words);
    expect(error.where).toContain('config.json');
  });
});

/** Overwrites bytes of a stored part. */
async function poke(directory: string, part: string, byte: (end: number, begin: number) => number, values: number[]) {
  await using checkpoint = await readCheckpoint(directory);
  const { file, begin, end } = checkpoint.reader.entry(part);
  const bytes = readFileSync(file);
  bytes.set(values, byte(end, begin));
  writeFileSync(file, bytes);
}

describe('parts whose content cannot be right', () => {
  const stem = upProj.slice(0, -'.weight'.length);
  test.each([
    ['a NaN', [0x00, 0x7e]],
    ['an infinity', [0x00, 0x7c]],
    ['a negative infinity', [0x00, 0xfc]],
  ])('%s among alphas and offsets is named with its index', async (_name, values) => {
    for (const suffix of ['.alphas', '.offsets']) {
      const { directory } = await whole();
      await poke(directory, stem + suffix, (_end, begin) => begin + 2 * 5, values);
      await using checkpoint = await readCheckpoint(directory);
      const error = await failureOf(() => checkpoint.load(upProj));
      expect([error.code, error.found]).toEqual(['LUTRA_E_NON_FINITE', 5]);
      expect(error.where).toContain(stem + suffix);
    }
  });

  test.each([
    ['.scales', 'f16'],
    ['.sub_a', 'f16'],
    ['.sub_b', 'f16'],
    ['.sub_a', 'bf16'],
    ['.sub_b', 'bf16'],
    ['.sub_a_scales', 'i8'],
    ['.sub_b_scales', 'i8'],
  ] as const)('a NaN in %s of a matrix with a sub-branch of %s is named with its index', async (suffix, dtype) => {
    const { directory } = await whole({ rank: 4, dtype });
    // The same bits are a NaN of f16, of bf16 and, twice, of f32.
    const width = dtype === 'i8' ? 4 : 2;
    const nan = [0xff, 0x7f, 0xff, 0x7f].slice(0, width);
    await poke(directory, qProj.slice(0, -7) + suffix, (_end, begin) => begin + width * 3, nan);
    await using checkpoint = await readCheckpoint(directory);
    const held = await memoryAtRest();
    const error = await failureOf(() => checkpoint.load(qProj));
    expect([error.code, error.found]).toEqual(['LUTRA_E_NON_FINITE', 3]);
    expect(error.where).toContain(qProj.slice(0, -7) + suffix);
    expect(nativeMemory()).toBe(held);
  });

  test('nothing is kept of a matrix whose pair cannot be given its shape', async () => {
    const { directory } = await whole({ rank: 4, dtype: 'i8' });
    await using checkpoint = await readCheckpoint(directory);
    const { reshape } = Tensor.prototype;
    const held = await memoryAtRest();
    for (const failing of [0, 1]) {
      let calls = 0;
      const spy = vi.spyOn(Tensor.prototype, 'reshape').mockImplementation(function (this: Tensor, shape) {
        if (calls++ === failing) throw new Error('reshape fails');
        return reshape.call(this, shape);
      });
      try {
        await expect(checkpoint.load(qProj)).rejects.toThrow('reshape fails');
      } finally {
        spy.mockRestore();
      }
      expect(nativeMemory()).toBe(held);
    }
  });

  test('padding that is not zero', async () => {
    const { directory } = await whole();
    // 96 rows of 3 groups of zero codes: 288 bytes in 320.
    await poke(directory, `${qProj.slice(0, -7)}.offsets`, (end) => end - 1, [1]);
    await using checkpoint = await readCheckpoint(directory);
    const error = await failureOf(() => checkpoint.load(qProj));
    expect(error.code).toBe('LUTRA_E_HEADER');
    expect(error.message).toContain('padding');
  });

  test('a file without a part', async () => {
    const { directory } = await whole();
    writeFileSync(join(directory, 'model.safetensors'), fileBytes({}));
    expect(await codeOf(() => readCheckpoint(directory))).toBe('LUTRA_E_NOT_FOUND');
  });
});

describe('a file whose parts are of another type or size than their entry', () => {
  const stem = qProj.slice(0, -'.weight'.length);
  type StoredEntry = { dtype: string; shape: number[]; data_offsets: number[] };
  /** Rewrites what the file's header says of a part; its bytes stay. */
  function redeclare(directory: string, part: string, change: (entry: StoredEntry) => void): void {
    const path = join(directory, 'model.safetensors');
    const bytes = readFileSync(path);
    const end = 8 + Number(bytes.readBigUInt64LE());
    const header = JSON.parse(bytes.toString('utf8', 8, end)) as Record<string, StoredEntry>;
    change(header[part]!);
    writeFileSync(path, fileBytes(header, bytes.subarray(end)));
  }
  const types: [string, string, number][] = [
    ['.codes', 'I8', 1],
    ['.scales', 'BF16', 1],
    ['.scales', 'F32', 2],
    ['.offsets', 'I8', 1],
    ['.sub_a', 'BF16', 1],
    ['.sub_b', 'I8', 0.5],
  ];

  test.each(types)('%s as %s', async (suffix, dtype, shrink) => {
    const { directory } = await whole({ rank: 4, dtype: 'f16' });
    redeclare(directory, stem + suffix, (entry) => Object.assign(entry, { dtype, shape: [entry.shape[0]! / shrink] }));
    const error = await failureOf(() => readCheckpoint(directory));
    expect([error.code, error.found]).toEqual(['LUTRA_E_DTYPE', dtype]);
    expect(error.where).toContain(stem + suffix);
  });

  test.each(['.codes', '.scales', '.offsets', '.sub_a', '.sub_b'])('%s of two dimensions', async (suffix) => {
    const { directory } = await whole({ rank: 4, dtype: 'f16' });
    redeclare(directory, stem + suffix, (entry) => Object.assign(entry, { shape: [entry.shape[0]! / 2, 2] }));
    const error = await failureOf(() => readCheckpoint(directory));
    expect(error.code).toBe('LUTRA_E_SHAPE');
    expect(error.where).toContain(stem + suffix);
  });

  test.each([
    ['more rank than stored', { rank: 5, dtype: 'F16' }, 'LUTRA_E_SHAPE', '.sub_a'],
    ['less rank than stored', { rank: 3, dtype: 'F16' }, 'LUTRA_E_SHAPE', '.sub_a'],
    ['another type than stored', { rank: 4, dtype: 'BF16' }, 'LUTRA_E_DTYPE', '.sub_a'],
  ])('a sub-branch of %s', async (_name, declared, code, suffix) => {
    const broken = await whole({ rank: 4, dtype: 'f16' });
    broken.entry.sub_branch = declared;
    writeFileSync(join(broken.directory, 'config.json'), JSON.stringify(broken.config));
    const error = await failureOf(() => readCheckpoint(broken.directory));
    expect(error.code).toBe(code);
    expect(error.where).toContain(stem + suffix);
  });
});

describe('config.json of strangers', () => {
  async function read(text: string | Uint8Array, limits = {}): Promise<string> {
    const directory = writeModel(fresh());
    writeFileSync(join(directory, 'config.json'), text);
    try {
      await (await readCheckpoint(directory, { limits })).close();
      return 'read';
    } catch (error) {
      if (!(error instanceof LutraError)) throw error;
      expect(error.where).toContain('config.json');
      return error.code;
    }
  }
  const nested = (levels: number) => `${'{"a":'.repeat(levels - 1)}{}${'}'.repeat(levels - 1)}`;

  test.each([
    ['nothing', ''],
    ['a list', '[]'],
    ['a null', 'null'],
    ['a duplicate', '{"a":1,"a":1}'],
    ['__proto__', '{"__proto__":{"model_type":"llama"}}'],
    ['__proto__ deep inside', '{"a":[{"__proto__":1}]}'],
    ['a number that overflows', '{"a":1e999}'],
    ['a number of Python', '{"a":NaN}'],
    ['a leading zero', '{"a":01}'],
    ['a comment', '{} // x'],
    ['bytes that are not UTF-8', Buffer.from([0x7b, 0x22, 0xff, 0x22, 0x3a, 0x31, 0x7d])],
  ])('%s', async (_name, text) => {
    expect(await read(text)).toBe('LUTRA_E_HEADER');
  });

  test('all kinds of values are read as they are', async () => {
    const directory = writeModel(fresh());
    const value = { a: [1, -2.5, 1e-5, true, false, null, 'é"\\\n', { b: [] }], constructor: 1, toString: {} };
    writeFileSync(join(directory, 'config.json'), JSON.stringify(value));
    await using checkpoint = await readCheckpoint(directory);
    expect(checkpoint.config).toEqual(value);
  });

  test('limits below, at and above', async () => {
    const outcomes = (sizes: number[], attempt: (size: number) => Promise<string>) => Promise.all(sizes.map(attempt));
    const expected = ['read', 'read', 'LUTRA_E_HEADER'];
    expect(await outcomes([63, 64, 65], (n) => read(nested(n)))).toEqual(expected);
    expect(await outcomes([99, 100, 101], (n) => read('{}'.padEnd(n), { configBytes: 100 }))).toEqual(expected);
    expect(
      await outcomes([9, 10, 11], (n) => read(JSON.stringify({ a: Array(n).fill(0) }), { arrayLength: 10 })),
    ).toEqual(expected);
    expect(
      await outcomes([59, 60, 61], (n) => read(JSON.stringify({ ['k'.repeat(n)]: 1 }), { stringLength: 60 })),
    ).toEqual(expected);
    expect(defaultLimits.configBytes).toBe(16_000_000);
  });

  test('any flip of bytes ends in a checkpoint or in a LutraError', async () => {
    const random = seeded(11);
    const { directory } = await whole();
    const path = join(directory, 'config.json');
    const bytes = readFileSync(path);
    let errors = 0;
    for (let trial = 0; trial < 300; ++trial) {
      const changed = Buffer.from(bytes);
      for (let flips = 1 + Math.floor(random() * 3); flips > 0; --flips)
        changed[Math.floor(random() * bytes.length)] = Math.floor(random() * 256);
      writeFileSync(path, changed);
      try {
        await (await readCheckpoint(directory)).close();
      } catch (error) {
        if (!(error instanceof LutraError)) throw error;
        errors++;
      }
    }
    expect(errors).toBeGreaterThan(100);
  });
});
