import { describe, expect, test } from 'vitest';
import { LutraError } from '../../lib/errors.js';
import { defaultLimits, type ReadLimits } from '../../lib/formats/index.js';
import { headerLength, parseHeader } from '../../lib/formats/safetensors/header.js';
import { failureOf, framed, seeded } from '../lib/formats/safetensors-bytes.js';

const limits: ReadLimits = { ...defaultLimits };
const entry = (begin: number, end: number, dtype = 'F32', shape = [(end - begin) / 4]) => ({
  dtype,
  shape,
  data_offsets: [begin, end],
});

function parse(header: unknown, dataBytes: number, changed: Partial<ReadLimits> = {}) {
  const bytes = Buffer.from(typeof header === 'string' ? header : JSON.stringify(header));
  return parseHeader(bytes, 'm.safetensors', 8 + bytes.length + dataBytes, { ...limits, ...changed });
}

describe('what a header may say', () => {
  test('entries come in the order of their data, with absolute positions', () => {
    const { entries, metadata } = parse({ __metadata__: { a: 'b' }, y: entry(8, 16), x: entry(0, 8) }, 16);
    expect(entries.map(({ name }) => name)).toEqual(['x', 'y']);
    expect(entries[1]!.end - entries[0]!.begin).toBe(16);
    expect(metadata.get('a')).toBe('b');
  });

  test('empty files, empty tensors, scalars, escapes, spaces behind, 8 dimensions', () => {
    expect(parse('{}', 0).entries).toEqual([]);
    expect(parse('{}       \n', 0).entries).toEqual([]);
    expect(parse({ e: entry(0, 0, 'F32', [3, 0]), x: entry(0, 4, 'F32', []) }, 4).entries).toHaveLength(2);
    expect(parse({ x: entry(0, 4, 'F32', [1, 1, 1, 1, 1, 1, 1, 1]) }, 4).entries[0]!.shape).toHaveLength(8);
    const [escaped] = parse('{"\\u00e9\\n\\ud83d\\ude00":{"dtype":"U8","shape":[],"data_offsets":[0,1]}}', 1).entries;
    expect(escaped!.name).toBe('é\n😀');
  });

  test('names of object members are ordinary names', () => {
    expect(parse({ constructor: entry(0, 4), toString: entry(4, 8) }, 8).entries).toHaveLength(2);
  });
});

const x = '"dtype":"F32","shape":[1],"data_offsets":[0,4]';
const hostile: [string, string | object, number, string, string | RegExp][] = [
  ['an empty header', '', 0, 'LUTRA_E_HEADER', 'm.safetensors at byte 8'],
  ['a list', '[]', 0, 'LUTRA_E_HEADER', 'byte 8'],
  ['a byte order mark', '\ufeff{}', 0, 'LUTRA_E_HEADER', 'byte 8'],
  ['a space in front', ' {}', 0, 'LUTRA_E_HEADER', 'byte 8'],
  ['an end in the middle', '{"x":', 0, 'LUTRA_E_HEADER', 'byte 13'],
  ['a string without end', '{"x', 0, 'LUTRA_E_HEADER', 'byte 11'],
  ['a comma at the end', `{"x":{${x}},}`, 4, 'LUTRA_E_HEADER', 'm.safetensors at byte'],
  ['text behind', '{} x', 0, 'LUTRA_E_HEADER', 'byte 11'],
  ['a zero byte behind', '{}\0', 0, 'LUTRA_E_HEADER', 'byte 10'],
  ['a duplicate tensor', `{"x":{${x}},"x":{${x}}}`, 4, 'LUTRA_E_HEADER', 'the key "x" appears twice'],
  ['a duplicate under an escape', `{"x":{${x}},"\\u0078":{${x}}}`, 4, 'LUTRA_E_HEADER', 'the key "x" appears twice'],
  ['a duplicate field', `{"x":{${x},"shape":[1]}}`, 4, 'LUTRA_E_HEADER', '"shape" appears twice'],
  ['duplicate metadata', '{"__metadata__":{"a":"1","a":"2"}}', 0, 'LUTRA_E_HEADER', '"a" appears twice'],
  ['two metadata', '{"__metadata__":{},"__metadata__":{}}', 0, 'LUTRA_E_HEADER', 'appears twice'],
  ['a tensor called __proto__', `{"__proto__":{${x}}}`, 4, 'LUTRA_E_HEADER', '__proto__'],
  ['metadata called __proto__', '{"__metadata__":{"__proto__":"x"}}', 0, 'LUTRA_E_HEADER', '__proto__'],
  ['a field called __proto__', `{"x":{${x},"__proto__":{}}}`, 4, 'LUTRA_E_HEADER', '__proto__'],
  ['metadata of numbers', '{"__metadata__":{"a":1}}', 0, 'LUTRA_E_HEADER', 'a string'],
  ['metadata of objects', '{"__metadata__":{"a":{}}}', 0, 'LUTRA_E_HEADER', 'a string'],
  ['metadata that is a string', '{"__metadata__":"a"}', 0, 'LUTRA_E_HEADER', 'an object'],
  ['a control character', '{"a\u0001":1}', 0, 'LUTRA_E_HEADER', 'control character'],
  ['an unknown escape', '{"a\\x41":1}', 0, 'LUTRA_E_HEADER', 'escape'],
  ['half a surrogate pair', '{"\\ud800":1}', 0, 'LUTRA_E_HEADER', 'surrogate'],
  ['a tensor that is a number', '{"x":1}', 0, 'LUTRA_E_HEADER', 'an object'],
  ['an unknown field', `{"x":{${x},"more":[]}}`, 4, 'LUTRA_E_HEADER', 'unknown field "more"'],
  ['no dtype', '{"x":{"shape":[1],"data_offsets":[0,4]}}', 4, 'LUTRA_E_HEADER', 'tensor "x" lacks'],
  ['no end', '{"x":{"dtype":"F32","shape":[1],"data_offsets":[0]}}', 4, 'LUTRA_E_HEADER', 'tensor "x" lacks'],
  ['three offsets', '{"x":{"dtype":"F32","shape":[1],"data_offsets":[0,4,8]}}', 4, 'LUTRA_E_HEADER', 'tensor "x"'],
  ['an unknown dtype', { x: entry(0, 4, 'Q4_0') }, 4, 'LUTRA_E_DTYPE', 'tensor "x"'],
  ['a dtype that objects have', { x: entry(0, 4, 'constructor') }, 4, 'LUTRA_E_DTYPE', 'tensor "x"'],
  ['a dtype that is a number', '{"x":{"dtype":3}}', 4, 'LUTRA_E_HEADER', 'a string'],
  ['a negative size', '{"x":{"dtype":"F32","shape":[-1]}}', 4, 'LUTRA_E_HEADER', '"-1"'],
  ['a fraction', '{"x":{"dtype":"F32","shape":[1.5]}}', 4, 'LUTRA_E_HEADER', '"1.5"'],
  ['an exponent', '{"x":{"dtype":"F32","shape":[1e0]}}', 4, 'LUTRA_E_HEADER', '"1e0"'],
  ['a size of 2^53', '{"x":{"dtype":"U8","shape":[9007199254740992]}}', 4, 'LUTRA_E_HEADER', '9007199254740992'],
  ['an offset of 2^64', '{"x":{"data_offsets":[0,18446744073709551616]}}', 4, 'LUTRA_E_HEADER', '18446744073709551616'],
  ['sizes that overflow', { x: entry(0, 0, 'F32', [2 ** 32, 2 ** 32]) }, 0, 'LUTRA_E_OFFSETS', 'tensor "x"'],
  [
    'sizes that overflow and vanish',
    { x: entry(0, 0, 'F32', [2 ** 52, 2 ** 52, 0]) },
    0,
    'LUTRA_E_OFFSETS',
    'tensor "x"',
  ],
  ['half a byte', { x: entry(0, 2, 'F4', [3]) }, 2, 'LUTRA_E_OFFSETS', 'tensor "x"'],
  ['reversed offsets', { x: entry(4, 0, 'F32', [1]) }, 4, 'LUTRA_E_OFFSETS', 'tensor "x"'],
  ['overlapping data', { x: entry(0, 8), y: entry(4, 12) }, 12, 'LUTRA_E_OFFSETS', 'tensor "y"'],
  ['the same data twice', { x: entry(0, 8), y: entry(0, 8) }, 8, 'LUTRA_E_OFFSETS', 'tensor "y"'],
  ['a gap', { x: entry(0, 8), y: entry(12, 16) }, 16, 'LUTRA_E_OFFSETS', 'tensor "y"'],
  ['a gap in front', { x: entry(4, 8) }, 8, 'LUTRA_E_OFFSETS', 'tensor "x"'],
  ['offsets out of range', { x: entry(0, 4), y: entry(2 ** 40, 2 ** 40 + 4) }, 8, 'LUTRA_E_OFFSETS', 'tensor "y"'],
  ['bytes that no tensor has', { x: entry(0, 8) }, 9, 'LUTRA_E_OFFSETS', 'behind the last tensor'],
  ['less data than the shape says', { x: entry(0, 4, 'F32', [2]) }, 4, 'LUTRA_E_OFFSETS', 'found 4 bytes, expected 8'],
  ['more data than the shape says', { x: entry(0, 8, 'F16', [2]) }, 8, 'LUTRA_E_OFFSETS', 'found 8 bytes, expected 4'],
  ['a file cut short', { x: entry(0, 8) }, 7, 'LUTRA_E_TRUNCATED', 'm.safetensors'],
  ['terabytes', { x: entry(0, 2 ** 42, 'U8', [2 ** 42]) }, 16, 'LUTRA_E_TRUNCATED', 'm.safetensors'],
];

describe('what a header may not say', () => {
  test.each(hostile)('%s', async (_name, header, dataBytes, code, words) => {
    const error = await failureOf(() => parse(header, dataBytes));
    expect(error.code).toBe(code);
    expect(error.message).toMatch(words);
    expect(error.message).toContain('m.safetensors');
    expect(error.message.length).toBeLessThan(700);
  });

  test('bytes that are not UTF-8', async () => {
    for (const bytes of [[0xff], [0xc0, 0x80], [0xed, 0xa0, 0x80], [0xf5, 0x80, 0x80, 0x80]]) {
      const header = Buffer.concat([Buffer.from('{"'), Buffer.from(bytes), Buffer.from('":1}')]);
      const error = await failureOf(() => parseHeader(header, 'm.safetensors', 100, limits));
      expect(error.code).toBe('LUTRA_E_HEADER');
      expect(error.message).toContain('UTF-8');
    }
  });

  test('an error names a hostile name on one short line', async () => {
    const error = await failureOf(() => parse({ [`\n${'n'.repeat(5000)}`]: entry(0, 4, 'NO') }, 4));
    expect(error.where).not.toContain('\n');
    expect(error.where!.length).toBeLessThan(200);
  });
});

describe('the length in front', () => {
  const prefix = (length: bigint) => framed(new Uint8Array(), 0, length);
  test.each([2n ** 64n - 1n, 2n ** 63n, 2n ** 53n + 1n, 100_000_001n])('%s is over the limit', async (length) => {
    const error = await failureOf(() => headerLength(prefix(length), 'm', 2 ** 52, limits));
    expect([error.code, error.found]).toEqual(['LUTRA_E_HEADER', String(length)]);
  });
  test('at the limit, at the end of the file, and one byte more', async () => {
    expect(headerLength(prefix(100_000_000n), 'm', 2 ** 52, limits)).toBe(100_000_000);
    expect(headerLength(prefix(2n), 'm', 10, limits)).toBe(2);
    expect((await failureOf(() => headerLength(prefix(3n), 'm', 10, limits))).code).toBe('LUTRA_E_TRUNCATED');
    expect((await failureOf(() => headerLength(new Uint8Array(7), 'm', 7, limits))).code).toBe('LUTRA_E_TRUNCATED');
  });
});

describe('each limit below, at and above', () => {
  const around = (limit: number) => [limit - 1, limit, limit + 1];
  async function expectLimit(limit: number, attempt: (size: number) => unknown) {
    const outcomes = [];
    for (const size of around(limit)) {
      try {
        attempt(size);
        outcomes.push('read');
      } catch (error) {
        outcomes.push((error as LutraError).code);
        expect((error as LutraError).expected).toContain(String(limit));
      }
    }
    expect(outcomes).toEqual(['read', 'read', 'LUTRA_E_HEADER']);
  }
  const many = (count: number) =>
    Object.fromEntries(Array.from({ length: count }, (_, i) => [`t${i}`, entry(i, i + 1, 'U8', [1])]));

  test('tensors', () => expectLimit(100, (n) => parse(many(n), n, { tensors: 100 })));
  test('dimensions', () => expectLimit(8, (n) => parse({ x: entry(0, 1, 'U8', Array(n).fill(1)) }, 1)));
  test('length of a name', () =>
    expectLimit(limits.stringLength, (n) => parse({ ['n'.repeat(n)]: entry(0, 1, 'U8', [1]) }, 1)));
  test('length of a name written as escapes', () =>
    expectLimit(1000, (n) => parse(`{"${'\\u0041'.repeat(n)}":{${x}}}`, 4, { stringLength: 1000 })));
  test('length of a metadata value and of all metadata', async () => {
    const short = { metadataLength: 1000 };
    await expectLimit(1000, (n) => parse({ __metadata__: { k: 'v'.repeat(n - 1) } }, 0, short));
    await expectLimit(1000, (n) => parse({ __metadata__: { a: 'v'.repeat(499), b: 'v'.repeat(n - 501) } }, 0, short));
  });
  test('200,000 tensors in a header are read', () => {
    const count = 200_000;
    expect(parse(many(count), count).entries).toHaveLength(count);
  });
});

test('any flip of bytes ends in a value or in a LutraError', () => {
  const random = seeded(7);
  const header = {
    __metadata__: { format: 'pt', 'model.embed_tokens.weight': 'lm_head.weight' },
    'model.layers.0.mlp.up_proj.weight': entry(0, 64, 'F16', [4, 8]),
    'lm_head.weight': entry(64, 96, 'F32', [2, 4]),
    'a\u00e9\ud83d\ude00': entry(96, 100, 'U8', [2, 2]),
  };
  const whole = Buffer.from(JSON.stringify(header));
  const outcomes = { values: 0, errors: 0 };
  for (let trial = 0; trial < 20_000; ++trial) {
    const bytes = Buffer.from(whole);
    for (let flips = 1 + Math.floor(random() * 3); flips > 0; --flips) {
      const at = Math.floor(random() * bytes.length);
      // Half of the flips keep to characters that JSON is made of, so that they get past the first checks.
      bytes[at] = random() < 0.5 ? Math.floor(random() * 256) : '{}[]",:0123456789eE-.\\u '.charCodeAt(random() * 24);
    }
    const cut = random() < 0.1 ? Math.floor(random() * bytes.length) : bytes.length;
    try {
      const { entries } = parseHeader(bytes.subarray(0, cut), 'm', 8 + cut + 100, limits);
      for (const { begin, end } of entries) expect(begin <= end && end <= 108 + cut).toBe(true);
      outcomes.values++;
    } catch (error) {
      if (!(error instanceof LutraError)) throw error;
      outcomes.errors++;
    }
  }
  expect(outcomes.values).toBeGreaterThan(100);
  expect(outcomes.errors).toBeGreaterThan(10_000);
});
