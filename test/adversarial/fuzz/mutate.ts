import { seeded } from '../../lib/formats/safetensors-bytes.js';

/** Changes seeds of text files at random: bytes, pieces, and the numbers, strings and brackets that JSON and YAML are made of. */

type Random = () => number;

const structure = Buffer.from('{}[]",:0123456789eE-+.\\u \n\t');
const words = [
  '{',
  '}',
  '[',
  ']',
  '[[[[[[[[[[[[[[[[',
  '{"a":{"a":{"a":{"a":',
  '"__proto__":',
  '"constructor":',
  '{"__proto__":{}}',
  'null',
  'true',
  '""',
  '"\\ud800"',
  '\\u0000',
  '\u0000',
  '\ufeff',
  '\u{1f600}',
  ',',
  ':',
  '- ',
  '? ',
  '&a ',
  '*a',
  '!!js ',
  '<<: ',
  '%YAML 9\n---\n',
  '---\n',
  '\n',
  '"Regex":"(a*)*b"',
  '"String":""',
  '"type":"Sequence"',
  '"type":"Unigram"',
  ' '.repeat(1e5),
];
const numbers = [
  '0',
  '-1',
  '1',
  '2',
  '3',
  '7',
  '16',
  '0.5',
  '1e0',
  '1e308',
  '1e999',
  '-0',
  '4294967295',
  '4294967296',
  '16777215',
  '16777216',
  '1125899906842624',
  '9007199254740991',
  '9007199254740992',
  '18446744073709551615',
  'NaN',
  'Infinity',
];

/** The `index`th input of a campaign: it depends on these arguments alone. */
export function fuzzed(seeds: readonly Uint8Array[], seed: number, index: number): Uint8Array {
  const random = seeded((seed * 0x9e3779b1 + index * 0x85ebca6b) >>> 0);
  const origin = pick(random, seeds);
  const value = random() < 0.6 ? parsed(origin) : undefined;
  if (value === undefined) return changedBytes(Buffer.from(origin), seeds, random);
  const root = { value: structuredClone(value) };
  for (let changes = 1 + below(random, 3); changes > 0; changes--) changeValue(root, random);
  const bytes = Buffer.from(JSON.stringify(root.value) ?? '');
  return random() < 0.8 ? bytes : changedBytes(bytes, seeds, random);
}

function changedBytes(seed: Uint8Array, seeds: readonly Uint8Array[], random: Random): Uint8Array {
  let bytes = seed;
  for (let changes = 1 + below(random, 4); changes > 0; changes--) bytes = change(bytes, seeds, random);
  return bytes;
}

const parsedSeeds = new Map<Uint8Array, unknown>();

/** The seed as JSON; undefined where it is none. */
function parsed(bytes: Uint8Array): unknown {
  if (!parsedSeeds.has(bytes)) {
    try {
      parsedSeeds.set(bytes, JSON.parse(Buffer.from(bytes).toString()));
    } catch {
      parsedSeeds.set(bytes, undefined);
    }
  }
  return parsedSeeds.get(bytes);
}

/** Changes, removes, adds or moves one value somewhere inside. */
function changeValue(root: object, random: Random): void {
  let at = root as Record<string, unknown>;
  for (;;) {
    const keys = Object.keys(at);
    if (!keys.length) return;
    const key = pick(random, keys);
    const child = at[key];
    if (typeof child === 'object' && child !== null && random() < 0.7) {
      at = child as Record<string, unknown>;
      continue;
    }
    const what = random();
    if (what < 0.15) delete at[key];
    else if (what < 0.3) at[pick(random, keyWords)] = structuredClone(child);
    else if (what < 0.45) at[key] = structuredClone(at[pick(random, keys)]);
    else if (what < 0.55) at[key] = [child, structuredClone(child)];
    else if (what < 0.75 && typeof child === 'number') at[key] = child + pick(random, [-1, 1, 0.5, 2 ** 20, -child]);
    else at[key] = structuredClone(pick(random, values));
    return;
  }
}

const keyWords = [
  'type',
  'pattern',
  'vocab',
  'merges',
  'content',
  'constructor',
  'toString',
  'dtype',
  'shape',
  'method',
  'bits',
  'a'.repeat(300),
];
const values: readonly unknown[] = [
  null,
  0,
  -1,
  1,
  2,
  3,
  4,
  0.5,
  16,
  2 ** 20,
  2 ** 22,
  2 ** 31,
  2 ** 32,
  2 ** 50,
  2 ** 53 - 1,
  2 ** 53,
  1e308,
  '',
  'a',
  '\u2581',
  'x'.repeat(1000),
  ' '.repeat(1e5),
  `${' '.repeat(1e5)}\n`,
  'toString',
  '__proto__',
  'constructor',
  'F32',
  'U8',
  'rtn',
  true,
  false,
  [],
  {},
  [[]],
  [1, 2],
  ['a', 'b'],
  { type: 'BPE' },
  { type: 'Unigram' },
  { type: 'toString' },
  { type: 'Sequence' },
  { Regex: '(a*)*b' },
  { Regex: '\\p{L}+' },
  { String: '' },
];

function change(bytes: Uint8Array, seeds: readonly Uint8Array[], random: Random): Uint8Array {
  if (bytes.length === 0) return Buffer.from(pick(random, words));
  const at = below(random, bytes.length);
  switch (below(random, 10)) {
    case 0:
      bytes[at]! ^= 1 << below(random, 8);
      return bytes;
    case 1:
      bytes[at] = below(random, 256);
      return bytes;
    case 2:
      bytes[at] = structure[below(random, structure.length)]!;
      return bytes;
    case 3:
      return spliced(bytes, at, at + 1 + below(random, 24), new Uint8Array());
    case 4: {
      const from = below(random, bytes.length);
      return spliced(bytes, at, at, bytes.subarray(from, from + 1 + below(random, 60)));
    }
    case 5:
      return spliced(bytes, at, at, Buffer.from(pick(random, words)));
    case 6: {
      const [begin, end] = run(bytes, at, isDigit);
      return spliced(bytes, begin, end, Buffer.from(pick(random, numbers)));
    }
    case 7: {
      const [begin, end] = run(bytes, at, isLetter);
      const other = pick(random, seeds);
      return spliced(bytes, begin, end, other.subarray(...run(other, below(random, other.length), isLetter)));
    }
    case 8: {
      const other = pick(random, seeds);
      const from = below(random, other.length);
      return spliced(bytes, at, at + below(random, 40), other.subarray(from, from + below(random, 40)));
    }
    default:
      return random() < 0.3 ? bytes.slice(0, at) : spliced(bytes, at, at, repeated(bytes[at]!, below(random, 200)));
  }
}

function spliced(bytes: Uint8Array, begin: number, end: number, insert: Uint8Array): Uint8Array {
  const last = Math.min(end, bytes.length);
  const result = new Uint8Array(bytes.length - (last - begin) + insert.length);
  result.set(bytes.subarray(0, begin));
  result.set(insert, begin);
  result.set(bytes.subarray(last), begin + insert.length);
  return result;
}

/** The first run of such bytes at or behind `at`, from its begin; empty where there is none. */
function run(bytes: Uint8Array, at: number, belongs: (byte: number) => boolean): [number, number] {
  let begin = at;
  while (begin < bytes.length && !belongs(bytes[begin]!)) begin++;
  let end = begin;
  while (end < bytes.length && belongs(bytes[end]!)) end++;
  return [begin, end];
}

const isDigit = (byte: number) => byte >= 0x30 && byte <= 0x39;
const isLetter = (byte: number) => (byte | 0x20) >= 0x61 && (byte | 0x20) <= 0x7a;
const repeated = (byte: number, times: number) => new Uint8Array(times).fill(byte);
const below = (random: Random, limit: number) => Math.floor(random() * limit);
const pick = <T>(random: Random, list: readonly T[]): T => list[below(random, list.length)]!;
