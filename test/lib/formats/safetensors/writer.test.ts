import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import {
  crc32c,
  openSafetensors,
  type PlannedTensor,
  planSafetensors,
  SafetensorsWriter,
} from '../../../../lib/formats/index.js';
import { Tensor } from '../../../../lib/tensor/index.js';
import { codeOf, scratchDirectory } from '../safetensors-bytes.js';
import { bytesOf, type SourceTensor, seededBytes, seededFile } from '../tiny-model.js';

const scratch = scratchDirectory();
let made = 0;
const newDirectory = (): string => {
  const directory = join(scratch, `out-${made++}`);
  mkdirSync(directory);
  return directory;
};

const sources: Record<string, SourceTensor> = {
  f32: { dtype: 'F32', shape: [3, 5] },
  f16: { dtype: 'F16', shape: [7] },
  bf16: { dtype: 'BF16', shape: [2, 2, 2, 2] },
  u8: { dtype: 'U8', shape: [11] },
  i64: { dtype: 'I64', shape: [2, 2, 1, 1, 2] },
  empty: { dtype: 'F32', shape: [0, 4] },
  scalar: { dtype: 'F32', shape: [] },
};

async function seededReader() {
  const directory = newDirectory();
  writeFileSync(join(directory, 'model.safetensors'), seededFile(sources, 3, { format: 'pt' }));
  return openSafetensors(directory);
}

async function allBytes(reader: Awaited<ReturnType<typeof seededReader>>) {
  const all: Record<string, string> = {};
  for (const name of reader.entries.keys()) {
    const pieces: Buffer[] = [];
    for await (const piece of reader.bytes(name)) pieces.push(Buffer.from(piece));
    all[name] = Buffer.concat(pieces).toString('hex');
  }
  return all;
}

const planned = (): PlannedTensor[] => Object.entries(sources).map(([name, tensor]) => ({ name, ...tensor }));

test.each([undefined, 1, 30, 70])('copies come back byte for byte with shards of %s bytes', async (shardBytes) => {
  await using source = await seededReader();
  const directory = newDirectory();
  const plan = planSafetensors(planned(), shardBytes === undefined ? {} : { shardBytes });
  const writer = await SafetensorsWriter.create(directory, plan);
  for (const name of [...source.entries.keys()].reverse()) await writer.copy(name, source);
  await writer.close();

  await using copy = await openSafetensors(directory);
  expect(await allBytes(copy)).toEqual(await allBytes(source));
  for (const [name, { dtype, shape }] of Object.entries(sources)) {
    expect(copy.entry(name)).toMatchObject({ dtype, shape });
  }
  expect(copy.metadata.get('format')).toBe('pt');
  const names = readdirSync(directory).sort();
  if (shardBytes === undefined) expect(names).toEqual(['model.safetensors']);
  else {
    const count = names.length - 1;
    expect(count).toBeGreaterThan(1);
    const digits = (n: number) => String(n).padStart(5, '0');
    for (let i = 1; i <= count; ++i) expect(names).toContain(`model-${digits(i)}-of-${digits(count)}.safetensors`);
    expect(names).toContain('model.safetensors.index.json');
  }
  for (const { name, size } of plan.files) {
    const file = readFileSync(join(directory, name));
    expect(file.length).toBe(size);
    expect((8 + file.readUInt32LE(0)) % 64).toBe(0);
  }
});

test.each(['f32', 'f16', 'bf16', 'u8', 'i32', 'f64'] as const)('a %s tensor comes back', async (dtype) => {
  const directory = newDirectory();
  using tensor = Tensor.zeros(dtype, [5, 3]);
  const bytes = seededBytes(tensor.byteLength, 9);
  const values = tensor.read();
  new Uint8Array(values.buffer).set(bytes);
  tensor.write(values);
  const stored = { f32: 'F32', f16: 'F16', bf16: 'BF16', u8: 'U8', i32: 'I32', f64: 'F64' } as const;
  const plan = planSafetensors([{ name: 'x', dtype: stored[dtype], shape: [5, 3] }]);
  const writer = await SafetensorsWriter.create(directory, plan);
  await writer.write('x', tensor);
  await writer.close();
  await using reader = await openSafetensors(directory);
  using back = await reader.load('x');
  expect([back.dtype, back.shape]).toEqual([dtype, [5, 3]]);
  expect(bytesOf(back)).toBe(Buffer.from(bytes).toString('hex'));
});

test('a zero tail fills what the tensor does not', async () => {
  const directory = newDirectory();
  const writer = await SafetensorsWriter.create(directory, planSafetensors([{ name: 'x', dtype: 'U8', shape: [8] }]));
  using short = Tensor.from(Uint8Array.of(1, 2, 3));
  expect(await codeOf(() => writer.write('x', short))).toBe('LUTRA_E_SHAPE');
  await writer.write('x', short, { zeroTail: true });
  await writer.close();
  await using reader = await openSafetensors(directory);
  using back = await reader.load('x');
  expect([...back.read()]).toEqual([1, 2, 3, 0, 0, 0, 0, 0]);
});

test('the checksums are those of the stored bytes', async () => {
  const digits = new TextEncoder().encode('123456789');
  expect(await crc32c(digits)).toBe(0xe3069283);
  expect(await crc32c(digits.subarray(4), await crc32c(digits.subarray(0, 4)))).toBe(0xe3069283);
  expect(await crc32c(new Uint8Array(0))).toBe(0);

  await using source = await seededReader();
  const directory = newDirectory();
  const padded: PlannedTensor = { name: 'padded', dtype: 'U8', shape: [64] };
  const writer = await SafetensorsWriter.create(directory, planSafetensors([...planned(), padded], { shardBytes: 70 }));
  for (const name of source.entries.keys()) {
    if (name === 'f16') await writer.write(name, (await source.load(name)) as Tensor);
    else await writer.copy(name, source);
  }
  await writer.write('padded', Tensor.from(Uint8Array.of(1, 2, 3)), { zeroTail: true });
  await writer.close();

  await using written = await openSafetensors(directory);
  expect([...writer.checksums.keys()].sort()).toEqual([...written.entries.keys()].sort());
  for (const { name, file, begin, end } of written.entries.values()) {
    const stored = readFileSync(file).subarray(begin, end);
    expect(writer.checksums.get(name), name).toBe(await crc32c(new Uint8Array(stored)));
  }
});

describe('misuse', () => {
  const one: PlannedTensor[] = [{ name: 'x', dtype: 'U8', shape: [3] }];

  test('names, dtypes and sizes that were not planned', async () => {
    await using source = await seededReader();
    const writer = await SafetensorsWriter.create(newDirectory(), planSafetensors(one));
    using bytes = Tensor.zeros('u8', [4]);
    using floats = Tensor.zeros('f32', [3]);
    expect(await codeOf(() => writer.write('y', bytes))).toBe('LUTRA_E_NOT_FOUND');
    expect(await codeOf(() => writer.write('x', bytes))).toBe('LUTRA_E_SHAPE');
    expect(await codeOf(() => writer.write('x', bytes, { zeroTail: true }))).toBe('LUTRA_E_SHAPE');
    expect(await codeOf(() => writer.write('x', floats))).toBe('LUTRA_E_DTYPE');
    expect(await codeOf(() => writer.copy('x', source, { from: 'f32' }))).toBe('LUTRA_E_DTYPE');
    expect(await codeOf(() => writer.copy('x', source, { from: 'u8' }))).toBe('LUTRA_E_SHAPE');
    expect(await codeOf(() => writer.close())).toBe('LUTRA_E_INTERNAL');
    await writer.abandon();
    await writer.abandon();
  });

  test('plans that cannot be', async () => {
    expect(await codeOf(() => planSafetensors([...one, ...one]))).toBe('LUTRA_E_OPTION');
    expect(await codeOf(() => planSafetensors([{ name: 'x', dtype: 'F32', shape: [2 ** 30, 2 ** 30] }]))).toBe(
      'LUTRA_E_SHAPE',
    );
    for (const shardBytes of [0, -1, 1.5, Number.NaN])
      expect(await codeOf(() => planSafetensors(one, { shardBytes }))).toBe('LUTRA_E_OPTION');
  });

  test('files that exist are not written over', async () => {
    const directory = newDirectory();
    writeFileSync(join(directory, 'model.safetensors'), 'mine');
    expect(await codeOf(() => SafetensorsWriter.create(directory, planSafetensors(one)))).toBe('LUTRA_E_EXISTS');
    expect(readFileSync(join(directory, 'model.safetensors'), 'utf8')).toBe('mine');
    expect(await codeOf(() => SafetensorsWriter.create(join(directory, 'no'), planSafetensors(one)))).toBe(
      'LUTRA_E_NOT_FOUND',
    );
  });
});
