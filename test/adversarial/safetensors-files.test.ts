import { execFileSync } from 'node:child_process';
import { mkdirSync, symlinkSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import type { LutraError } from '../../lib/errors.js';
import { openSafetensors } from '../../lib/formats/index.js';
import { failureOf, fileBytes, framed, scratchDirectory } from '../lib/formats/safetensors-bytes.js';

const scratch = scratchDirectory();
const shard = fileBytes({ x: { dtype: 'U8', shape: [4], data_offsets: [0, 4] } }, 4);

function directory(name: string): string {
  const path = join(scratch, name);
  mkdirSync(path, { recursive: true });
  return path;
}

function indexed(name: string, shardName: string): string {
  const path = directory(name);
  writeFileSync(join(path, 'model.safetensors.index.json'), JSON.stringify({ weight_map: { x: shardName } }));
  return path;
}

describe('shard names that lead out of the directory', () => {
  const outside = join(scratch, 'outside.safetensors');
  writeFileSync(outside, shard);

  test.each([outside, '../outside.safetensors', './x.safetensors', 'a/../x', '..', '.', '', 'a\\b', 'a\0b', '/'])(
    '%j',
    async (name) => {
      const error = await failureOf(() => openSafetensors(indexed('paths', name)));
      expect(error.code).toBe('LUTRA_E_HEADER');
      expect(error.where).toContain('model.safetensors.index.json');
      expect(error.expected).toBe('a plain file name');
    },
  );

  test('a link out of the directory', async () => {
    const path = indexed('links', 'x.safetensors');
    symlinkSync(outside, join(path, 'x.safetensors'));
    const error = await failureOf(() => openSafetensors(path));
    expect(error.code).toBe('LUTRA_E_HEADER');
    expect(error.message).toContain('leads out of its directory');
  });

  test('a link out of the directory in place of the only file', async () => {
    const path = directory('single-link');
    symlinkSync(outside, join(path, 'model.safetensors'));
    expect((await failureOf(() => openSafetensors(path))).code).toBe('LUTRA_E_HEADER');
  });

  test('a sibling whose name begins with the name of the directory is outside', async () => {
    const path = indexed('begin', 'x.safetensors');
    writeFileSync(join(directory('beginning'), 'x.safetensors'), shard);
    symlinkSync(join(scratch, 'beginning', 'x.safetensors'), join(path, 'x.safetensors'));
    expect((await failureOf(() => openSafetensors(path))).code).toBe('LUTRA_E_HEADER');
  });

  test('links inside the directory, and into the blobs of a cache, are followed', async () => {
    const inside = indexed('inside', 'link.safetensors');
    writeFileSync(join(inside, 'real.safetensors'), shard);
    symlinkSync('real.safetensors', join(inside, 'link.safetensors'));
    await (await openSafetensors(inside)).close();

    const snapshot = directory('cache/snapshots/abc');
    writeFileSync(join(directory('cache/blobs'), '123'), shard);
    symlinkSync('../../blobs/123', join(snapshot, 'model.safetensors'));
    await (await openSafetensors(snapshot)).close();
  });
});

describe('the limits of an index, below, at and above', () => {
  async function outcomes(sizes: number[], indexOf: (size: number) => string, limits = {}): Promise<string[]> {
    const path = indexed('limits', 'x.safetensors');
    writeFileSync(join(path, 'x.safetensors'), shard);
    const found: string[] = [];
    for (const size of sizes) {
      writeFileSync(join(path, 'model.safetensors.index.json'), indexOf(size));
      found.push(
        await openSafetensors(path, limits).then(
          (reader) => reader.close().then(() => 'read'),
          (error: LutraError) => error.code,
        ),
      );
    }
    return found;
  }
  const map = '"weight_map":{"x":"x.safetensors"}';
  const expected = ['read', 'read', 'LUTRA_E_HEADER'];

  test('its bytes', async () => {
    expect(await outcomes([499, 500, 501], (n) => `{${map}}`.padEnd(n), { headerBytes: 500 })).toEqual(expected);
  });
  test('values inside each other', async () => {
    // The index is the first level; metadata is the second.
    const nested = (levels: number) => `${'['.repeat(levels - 1)}${']'.repeat(levels - 1)}`;
    expect(await outcomes([63, 64, 65], (n) => `{"metadata":${nested(n)},${map}}`)).toEqual(expected);
  });
  test('its tensors and its files', async () => {
    const files = (n: number) => Array.from({ length: n }, (_, i) => `"t${i}":"f${i}"`).join();
    const code = (n: number, limits: object) => outcomes([n], () => `{"weight_map":{${files(n)}}}`, limits);
    for (const limits of [{ tensors: 20 }, { shards: 20 }]) {
      // Within the limit the next thing that is wrong is found: the files are not there.
      expect(await code(20, limits)).toEqual(['LUTRA_E_NOT_FOUND']);
      expect(await code(21, limits)).toEqual(['LUTRA_E_HEADER']);
    }
  });
});

describe('files that are not what they say', () => {
  const file = (name: string, bytes: Uint8Array): string => {
    const path = join(scratch, name);
    writeFileSync(path, bytes);
    return path;
  };

  test.each([
    ['no bytes at all', new Uint8Array(), 'LUTRA_E_TRUNCATED'],
    ['seven bytes', new Uint8Array(7), 'LUTRA_E_TRUNCATED'],
    ['a length of zero', new Uint8Array(8), 'LUTRA_E_HEADER'],
    ['a length near 2^64', framed(Buffer.from('{}'), 0, 2n ** 64n - 8n), 'LUTRA_E_HEADER'],
    ['a header longer than the file', framed(Buffer.from('{}'), 0, 3n), 'LUTRA_E_TRUNCATED'],
    ['a pickle', Buffer.from('\x80\x02}q\x00X\x01\x00\x00\x00aq\x01K\x01s.', 'latin1'), 'LUTRA_E_HEADER'],
  ])('%s', async (name, bytes, code) => {
    const path = file(`${name}.safetensors`, bytes);
    const error = await failureOf(() => openSafetensors(path));
    expect(error.code).toBe(code);
    expect(error.where).toContain(path);
  });

  test('terabytes in a small file are refused, in a sparse file never allocated', async () => {
    const bytes = 2 ** 42;
    const header = fileBytes({ x: { dtype: 'U8', shape: [bytes], data_offsets: [0, bytes] } });
    const small = file('small.safetensors', header);
    expect((await failureOf(() => openSafetensors(small))).code).toBe('LUTRA_E_TRUNCATED');

    const sparse = file('sparse.safetensors', header);
    truncateSync(sparse, header.length + bytes);
    await using reader = await openSafetensors(sparse);
    const error = await failureOf(() => reader.load('x'));
    expect(error.code).toBe('LUTRA_E_MEMORY');
    expect(error.where).toContain('tensor "x"');
  });

  test('a file that is cut while it is read ends in a whole tensor or as truncated', async () => {
    const bytes = 2 ** 26;
    const header = fileBytes({ x: { dtype: 'U8', shape: [bytes], data_offsets: [0, bytes] } });
    const outcomes = new Set<string>();
    for (const delay of [0, 1, 2, 4, 8, 16]) {
      const path = file('cut.safetensors', header);
      truncateSync(path, header.length + bytes);
      await using reader = await openSafetensors(path);
      const loading = reader.load('x').then(
        (tensor) => {
          tensor.dispose();
          return 'whole';
        },
        (error: LutraError) => error.code,
      );
      await new Promise((resolve) => setTimeout(resolve, delay));
      truncateSync(path, header.length + 100);
      outcomes.add(await loading);
      expect((await failureOf(() => reader.load('x'))).code).toBe('LUTRA_E_TRUNCATED');
    }
    expect([...outcomes].filter((outcome) => outcome !== 'whole' && outcome !== 'LUTRA_E_TRUNCATED')).toEqual([]);
  });

  test('a header as long as the limit, of zeros in a sparse file', async () => {
    const sparse = file('zeros.safetensors', framed(new Uint8Array(), 0, 100_000_000n));
    truncateSync(sparse, 100_000_008);
    expect((await failureOf(() => openSafetensors(sparse))).code).toBe('LUTRA_E_HEADER');
  });

  test('a pipe, a directory and nothing', async () => {
    const path = directory('kinds');
    execFileSync('mkfifo', [join(path, 'pipe')]);
    expect((await failureOf(() => openSafetensors(join(path, 'pipe')))).code).toBe('LUTRA_E_IO');
    mkdirSync(join(path, 'model.safetensors'));
    expect((await failureOf(() => openSafetensors(path))).code).toBe('LUTRA_E_IO');
    expect((await failureOf(() => openSafetensors(join(path, 'nothing')))).code).toBe('LUTRA_E_NOT_FOUND');
  });
});
