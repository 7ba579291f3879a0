import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import {
  type Checkpoint,
  CheckpointWriter,
  planCheckpoint,
  type QuantizedEntry,
  readCheckpoint,
} from '../../../../lib/formats/index.js';
import { type QuantizedTensor, Tensor } from '../../../../lib/tensor/index.js';
import { describeWithShared, sharedModel, sharedModels } from '../../../shared-material.js';
import { codeOf, failureOf, scratchDirectory } from '../safetensors-bytes.js';
import {
  bytesOf,
  contentOf,
  entryOf,
  qProj,
  recipe,
  seededFile,
  seededMatrix,
  tinyTensors,
  upProj,
  writeModel,
} from '../tiny-model.js';

const scratch = scratchDirectory();
let made = 0;
const fresh = (): string => join(scratch, `${made++}`);

async function written(
  source: Checkpoint,
  quantized: ReadonlyMap<string, QuantizedEntry>,
  options: { out?: string; shardBytes?: number } = {},
): Promise<{ out: string; contents: Map<string, ReturnType<typeof contentOf>> }> {
  const { out = fresh(), shardBytes } = options;
  const plan = await planCheckpoint({ source, quantized, recipe, shardBytes });
  await using writer = await CheckpointWriter.create(plan, out);
  const contents = new Map<string, ReturnType<typeof contentOf>>();
  let seed = 1;
  for (const [name, entry] of quantized) {
    using matrix = seededMatrix(entry, seed++ * 10);
    contents.set(name, contentOf(matrix));
    await writer.put(name, matrix);
  }
  await writer.finish(() => ({ 'manifest.json': { seed: 1 } }));
  return { out, contents };
}

const layouts: [string, QuantizedEntry][] = [];
for (const offsets of ['none', 'zeroCode', 'real'] as const)
  for (const [bits, groupSize] of [
    [2, 16],
    [3, 32],
    [4, 64],
    [3, -1],
  ] as const)
    for (const dtype of ['f16', 'bf16', 'f32'] as const)
      layouts.push([`uniform W${bits}g${groupSize} ${offsets} ${dtype}`, entryOf({ bits, groupSize, offsets }, dtype)]);
for (const offsets of ['none', 'real'] as const)
  for (const bits of [2, 3, 4])
    layouts.push([`planes W${bits}g32 ${offsets}`, entryOf({ bits, kind: 'planes', offsets })]);

for (const dtype of ['f16', 'bf16', 'i8'] as const)
  for (const rank of [1, 7, 64])
    layouts.push([`W3g32 with rank ${rank} in ${dtype}`, entryOf({}, 'f16', { rank, dtype })]);

describe('a quantized matrix comes back bit by bit', () => {
  test.each(layouts)('%s', async (_name, entry) => {
    await using source = await readCheckpoint(writeModel(fresh()));
    const second = entryOf({ ...entry.layout, rows: 130 }, entry.scaleDtype, entry.subBranch);
    const quantized = new Map([
      [qProj, entry],
      [upProj, second],
    ]);
    const { out, contents } = await written(source, quantized);
    await using checkpoint = await readCheckpoint(out);
    for (const [name, expected] of contents) {
      using loaded = (await checkpoint.load(name)) as QuantizedTensor;
      expect(contentOf(loaded)).toEqual(expected);
    }
    expect(checkpoint.quantization?.tensors).toEqual(quantized);
    expectAligned(checkpoint);
  });
});

/** Quantized tensors lie in front, each at a multiple of 64, one behind the other. */
function expectAligned(checkpoint: Checkpoint): void {
  const parts = [...checkpoint.reader.entries.values()];
  const quantizedParts = parts.filter(({ name }) => !checkpoint.has(name));
  expect(quantizedParts.length).toBeGreaterThan(3);
  expect(parts.slice(0, quantizedParts.length)).toEqual(quantizedParts);
  for (const { begin } of quantizedParts) expect(begin % 64).toBe(0);
}

const pair = (): Map<string, QuantizedEntry> =>
  new Map([
    [qProj, entryOf()],
    [upProj, entryOf({ rows: 130, bits: 2 })],
  ]);

test('everything else is the source, byte for byte', async () => {
  const files = {
    'tokenizer.json': '{"a":1}',
    'tokenizer_config.json': '{}',
    'chat_template.jinja': '{{ x }}',
    'generation_config.json': '{}',
    LICENSE: 'terms',
    'LICENCE.md': 'terms',
    'NOTICE.txt': 'notice',
    'README.md': 'the card of another model',
    'pytorch_model.bin': 'pickle',
  };
  const directory = writeModel(fresh(), { files, config: { model_type: 'llama', custom: [1, { a: null }] } });
  await using source = await readCheckpoint(directory);
  const { out } = await written(source, pair());
  await using checkpoint = await readCheckpoint(out);
  expect([...checkpoint.names].sort()).toEqual([...source.names].sort());
  for (const name of source.names)
    if (!pair().has(name)) {
      using a = (await source.load(name)) as never;
      using b = (await checkpoint.load(name)) as never;
      expect(bytesOf(b)).toBe(bytesOf(a));
      expect(checkpoint.tensor(name)).toEqual(source.tensor(name));
    }
  const expected = Object.keys(files).filter((name) => !/README|pytorch/.test(name));
  expect(readdirSync(out).sort()).toEqual([...expected, 'config.json', 'manifest.json', 'model.safetensors'].sort());
  for (const name of expected) expect(readFileSync(join(out, name), 'utf8')).toBe(files[name as keyof typeof files]);
  expect(checkpoint.config).toMatchObject({ model_type: 'llama', custom: [1, { a: null }] });
  expect(checkpoint.quantization).toMatchObject({ bits: 3, groupSize: 32, symmetric: false, recipe });
  expect(checkpoint.quantization?.modulesToNotConvert).toEqual(['model.embed_tokens']);
});

test('bits per weight and per parameter are the bytes of the files', async () => {
  await using source = await readCheckpoint(writeModel(fresh()));
  const { out, contents } = await written(source, pair());
  await using checkpoint = await readCheckpoint(out);
  const file = readFileSync(join(out, 'model.safetensors'));
  const dataBytes = file.length - 8 - file.readUInt32LE(0);
  const parameters = Object.values(tinyTensors).reduce((sum, { shape }) => sum + shape.reduce((a, b) => a * b), 0);
  expect(checkpoint.bytes).toBe(dataBytes);
  expect(checkpoint.bitsPerParameter).toBeCloseTo((8 * dataBytes) / parameters, 12);

  const round64 = (hex: string | null) => Math.ceil((hex?.length ?? 0) / 2 / 64) * 64;
  const stored = [...contents.values()].reduce(
    (sum, { codes, scales, offsets }) => sum + round64(codes) + round64(scales) + round64(offsets),
    0,
  );
  expect(checkpoint.bitsPerWeight).toBeCloseTo((8 * stored) / ((81 + 130) * 70), 12);
  expect(source.bitsPerWeight).toBeNull();
  expect(source.bitsPerParameter).toBeGreaterThan(16);
});

test('two runs write the same bytes', async () => {
  await using source = await readCheckpoint(writeModel(fresh()));
  const [a, b] = [await written(source, pair()), await written(source, pair())];
  expect(readdirSync(a.out)).toEqual(readdirSync(b.out));
  for (const name of readdirSync(a.out))
    expect(readFileSync(join(a.out, name))).toEqual(readFileSync(join(b.out, name)));
});

test('shards are cut between tensors and read as one', async () => {
  await using source = await readCheckpoint(writeModel(fresh()));
  const { out, contents } = await written(source, pair(), { shardBytes: 3000 });
  expect(readdirSync(out).filter((name) => name.endsWith('.safetensors')).length).toBeGreaterThan(2);
  await using checkpoint = await readCheckpoint(out);
  using loaded = (await checkpoint.load(upProj)) as QuantizedTensor;
  expect(contentOf(loaded)).toEqual(contents.get(upProj));
  for (const { name, begin } of checkpoint.reader.entries.values())
    if (!checkpoint.has(name)) expect(begin % 64).toBe(0);
});

describe('tied embeddings', () => {
  const embedding = 'model.embed_tokens.weight';
  const head = 'lm_head.weight';
  const { [embedding]: table, ...others } = tinyTensors;

  async function tiedBytes(tensors: typeof tinyTensors, stored: string) {
    await using source = await readCheckpoint(writeModel(fresh(), { tensors }));
    const { out } = await written(source, pair());
    await using checkpoint = await readCheckpoint(out);
    expect(checkpoint.has(head)).toBe(false);
    using a = (await source.load(stored)) as never;
    using b = (await checkpoint.load(embedding)) as never;
    expect(bytesOf(b)).toBe(bytesOf(a));
  }

  test('stored as the embedding', () => tiedBytes(tinyTensors, embedding));
  test('stored as the output layer alone', () => tiedBytes({ [head]: table!, ...others }, head));

  test('stored twice', async () => {
    const directory = writeModel(fresh());
    const bytes = seededFile({ [embedding]: { dtype: 'U8', shape: [4, 4] } }, 1);
    const data = bytes.subarray(bytes.length - 16);
    const header = {
      [embedding]: { dtype: 'U8', shape: [4, 4], data_offsets: [0, 16] },
      [head]: { dtype: 'U8', shape: [4, 4], data_offsets: [16, 32] },
    };
    const { fileBytes } = await import('../safetensors-bytes.js');
    const path = join(directory, 'model.safetensors');
    writeFileSync(path, fileBytes(header, Buffer.concat([data, data])));
    {
      await using source = await readCheckpoint(directory);
      const plan = await planCheckpoint({ source, quantized: new Map(), recipe });
      expect([...plan.copied]).toEqual([[embedding, embedding]]);
    }
    const changed = Buffer.from(data);
    changed[15]! ^= 1;
    writeFileSync(path, fileBytes(header, Buffer.concat([data, changed])));
    await using source = await readCheckpoint(directory);
    expect(await codeOf(() => planCheckpoint({ source, quantized: new Map(), recipe }))).toBe(
      'LUTRA_E_UNSUPPORTED_MODEL',
    );
  });

  test('an output layer of its own is kept', async () => {
    const config = { tie_word_embeddings: false };
    await using source = await readCheckpoint(
      writeModel(fresh(), { tensors: { [head]: table!, ...tinyTensors }, config }),
    );
    const { out } = await written(source, pair());
    await using checkpoint = await readCheckpoint(out);
    expect(checkpoint.has(head) && checkpoint.has(embedding)).toBe(true);
    expect(checkpoint.quantization?.modulesToNotConvert.toSorted()).toEqual(['lm_head', 'model.embed_tokens']);
  });
});

describe('plans that do not fit their source', () => {
  test('a matrix that is not there, or of another shape, or a vector', async () => {
    await using source = await readCheckpoint(writeModel(fresh()));
    const plan = (name: string, entry: QuantizedEntry) =>
      planCheckpoint({ source, quantized: new Map([[name, entry]]), recipe });
    expect(await codeOf(() => plan('nothing.weight', entryOf()))).toBe('LUTRA_E_NOT_FOUND');
    const error = await failureOf(() => plan(qProj, entryOf({ cols: 71 })));
    expect([error.code, error.found, error.expected]).toEqual(['LUTRA_E_SHAPE', '[81,70]', '[81, 71]']);
    expect(await codeOf(() => plan('model.norm.weight', entryOf({ rows: 1 })))).toBe('LUTRA_E_SHAPE');
  });

  test('a model that is quantized already', async () => {
    await using source = await readCheckpoint(writeModel(fresh()));
    const { out } = await written(source, pair());
    await using again = await readCheckpoint(out);
    expect(await codeOf(() => planCheckpoint({ source: again, quantized: new Map(), recipe }))).toBe(
      'LUTRA_E_UNSUPPORTED_MODEL',
    );
  });

  test('matrices that were not planned', async () => {
    await using source = await readCheckpoint(writeModel(fresh()));
    const plan = await planCheckpoint({ source, quantized: pair(), recipe });
    await using writer = await CheckpointWriter.create(plan, fresh());
    using narrow = seededMatrix(entryOf({ bits: 2 }), 1);
    using wide = seededMatrix(entryOf({}, 'f32'), 1);
    expect(await codeOf(() => writer.put('nothing.weight', narrow))).toBe('LUTRA_E_NOT_FOUND');
    expect(await codeOf(() => writer.put(qProj, narrow))).toBe('LUTRA_E_SHAPE');
    expect(await codeOf(() => writer.put(qProj, wide))).toBe('LUTRA_E_DTYPE');
    expect(await codeOf(() => writer.finish())).toBe('LUTRA_E_INTERNAL');
  });
});

describeWithShared('checkpoints as they are published', () => {
  test.each(sharedModels)('%s opens unquantized', async (name) => {
    await using checkpoint = await readCheckpoint(sharedModel(name));
    expect(checkpoint.quantization).toBeNull();
    expect(checkpoint.bitsPerParameter).toBe(name === 'demo' ? 16 : 32);
    using norm = await checkpoint.load('model.norm.weight');
    expect(norm.shape).toEqual([checkpoint.config.hidden_size]);
  });
});

test('a directory without a model says what is missing', async () => {
  const directory = fresh();
  expect(await codeOf(() => readCheckpoint(directory))).toBe('LUTRA_E_NOT_FOUND');
  mkdirSync(directory);
  const error = await failureOf(() => readCheckpoint(directory));
  expect([error.code, error.where]).toEqual(['LUTRA_E_NOT_FOUND', join(directory, 'config.json')]);
});

describe('replaced tensors', () => {
  test('are put instead of copied, new ones among them, and none may be forgotten', async () => {
    await using source = await readCheckpoint(writeModel(fresh()));
    const norm = 'model.norm.weight';
    const replaced = [
      { name: norm, dtype: 'F16', shape: [70] },
      { name: 'lm_head.weight', dtype: 'F32', shape: [50, 70] },
    ] as const;
    const config = { tie_word_embeddings: false };
    const plan = await planCheckpoint({ source, quantized: new Map(), replaced, config, recipe });
    expect(plan.copied.has(norm)).toBe(false);
    await using writer = await CheckpointWriter.create(plan, fresh());
    using head = Tensor.zeros('f32', [50, 70]);
    head.fill(3);
    await writer.putDense('lm_head.weight', head);
    expect(await codeOf(() => writer.putDense(norm, head))).toBe('LUTRA_E_DTYPE');
    expect(await codeOf(() => writer.finish())).toBe('LUTRA_E_INTERNAL');

    const out = fresh();
    await using again = await CheckpointWriter.create(plan, out);
    using weight = Tensor.zeros('f16', [70]);
    await again.putDense('lm_head.weight', head);
    await again.putDense(norm, weight);
    await again.finish();
    await using written = await readCheckpoint(out);
    expect(written.config.tie_word_embeddings).toBe(false);
    expect(written.tensor(norm)).toMatchObject({ dtype: 'F16', shape: [70] });
    using stored = (await written.load('lm_head.weight')) as Tensor;
    expect(new Set(stored.read())).toEqual(new Set([3]));
    expect(written.quantization?.modulesToNotConvert).toContain('lm_head');
  });
});
