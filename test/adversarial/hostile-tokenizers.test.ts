import { describe, expect, test } from 'vitest';
import { LutraError } from '../../lib/errors.js';
import { Tokenizer } from '../../lib/tokenizer/index.js';
import { failureOf, seeded } from '../lib/formats/safetensors-bytes.js';

const letters = [...'abcdefghijklmnopqrstuvwxyz ▁'];
const plain = {
  version: '1.0',
  added_tokens: [{ id: 0, content: '<s>', special: true, normalized: false }],
  normalizer: { type: 'Replace', pattern: { String: ' ' }, content: '▁' },
  pre_tokenizer: null as unknown,
  post_processor: null,
  decoder: { type: 'Sequence', decoders: [{ type: 'Replace', pattern: { String: '▁' }, content: ' ' }] } as unknown,
  model: {
    type: 'BPE',
    vocab: Object.fromEntries(['<s>', ...letters, 'ab', 'abc', 'aa'].map((token, id) => [token, id])),
    merges: ['a b', 'ab c', 'a a'],
    unk_token: '<s>',
  },
};
const make = (changes: object = {}) => new Tokenizer({ ...plain, ...changes }, {}, 'tokenizer.json');

test('the plain one works', () => {
  const ids = make().encode('abc aa', { bos: true });
  expect(make().decode(ids)).toBe('abc aa');
});

describe('patterns that backtrack for years', () => {
  const text = `${'a'.repeat(60)}!`;
  const endless = ['(a+)+$', '(?:a|a)*$'];
  const split = (Regex: string) => ({ type: 'Split', pattern: { Regex }, behavior: 'Isolated', invert: false });

  test.each(endless)('%s of a pre-tokenizer is ended', async (regex) => {
    const tokenizer = make({ pre_tokenizer: split(regex) });
    const failure = await failureOf(() => tokenizer.encode(text, { bos: false }));
    expect(failure).toMatchObject({ code: 'LUTRA_E_UNSUPPORTED_MODEL', where: 'tokenizer.json' });
    expect(failure.message).toContain('backtracks');
    // The next text is none the worse for it.
    expect(tokenizer.decode(tokenizer.encode('ab', { bos: false }))).toBe('ab');
  });

  test('of a normalizer and of a decoder', async () => {
    const replace = { type: 'Replace', pattern: { Regex: '(a+)+$' }, content: '' };
    expect((await failureOf(() => make({ normalizer: replace }).encode(text, { bos: false }))).code).toBe(
      'LUTRA_E_UNSUPPORTED_MODEL',
    );
    const tokenizer = make({ decoder: { type: 'Sequence', decoders: [{ type: 'Fuse' }, replace] } });
    const ids = tokenizer.encode(`${'a'.repeat(60)}b`, { bos: false });
    expect((await failureOf(() => tokenizer.decode(ids))).code).toBe('LUTRA_E_UNSUPPORTED_MODEL');
  });
});

test.each([' ', '\n'])('kinds of parts that are a million of %j', async (blank) => {
  const failure = await failureOf(() => make({ normalizer: { type: blank.repeat(1e6) } }));
  expect(failure.code).toBe('LUTRA_E_UNSUPPORTED_MODEL');
  expect(failure.message.length).toBeLessThan(5000);
});

test.each([
  ['no list', 'a b', 'model.merges'],
  ['a text without a blank', ['a b', 'ab'], 'model.merges.1'],
  ['a text of three words', ['a b c'], 'model.merges.0'],
  ['a text with an empty side', ['a '], 'model.merges.0'],
  ['a list of three', [['a', 'b', 'c']], 'model.merges.0'],
  ['a number', ['a b', 7], 'model.merges.1'],
  ['a pair among texts', ['a b', ['a', 'a']], 'model.merges.1'],
  ['a text among pairs', [['a', 'b'], 'a a'], 'model.merges.1'],
  ['nothing', undefined, 'model.merges'],
])('merges that are none: %s', async (_, merges, place) => {
  const failure = await failureOf(() => make({ model: { ...plain.model, merges } }));
  expect(failure).toMatchObject({ code: 'LUTRA_E_HEADER', where: `tokenizer.json: ${place}` });
  expect(failure.expected).toBeDefined();
});

test.each(['Unigramm', 'bpe', 7, undefined])('a model of the kind %s is not guessed at', async (type) => {
  const failure = await failureOf(() => make({ model: { ...plain.model, type } }));
  const refused = { code: 'LUTRA_E_UNSUPPORTED_MODEL', where: 'tokenizer.json: model.type' };
  expect(failure).toMatchObject({ ...refused, expected: 'BPE, Unigram, WordPiece, WordLevel' });
});

test('texts of one character a million times over', () => {
  const tokenizer = make();
  for (const character of ['a', ' ', 'z', '\u{1f600}'])
    expect(tokenizer.encode(character.repeat(1e6), { bos: false }).length).toBeGreaterThan(4e5);
});

test('merges in circles, of nothing and of strangers', () => {
  for (const merges of [
    ['a b', 'ab a', 'b ab', 'ab ab'],
    ['a b', 'a b', 'a b'],
    [' ', '  ', ''],
    ['q qq', 'qq q', 'nobody knows'],
    [
      ['a', 'b'],
      ['ab', ''],
    ],
  ]) {
    try {
      const ids = make({ model: { ...plain.model, merges } }).encode('abababab', { bos: false });
      expect(ids.every((id) => id >= 0 && id < 40)).toBe(true);
    } catch (error) {
      expect(error).toBeInstanceOf(LutraError);
    }
  }
});

test.each([-1, 0.5, 2 ** 22, 1e300, Number.NaN, '7', null, [], {}, true])('an id that is none: %s', async (id) => {
  const vocab = { ...plain.model.vocab, q: id };
  const failure = await failureOf(() => make({ model: { ...plain.model, vocab } }));
  expect(failure).toMatchObject({ code: 'LUTRA_E_HEADER', where: 'tokenizer.json: model.vocab' });
});

test('an id just at the limit is one', () => {
  const vocab = { ...plain.model.vocab, q: 2 ** 22 - 1 };
  expect(make({ model: { ...plain.model, vocab } }).vocabularySize).toBe(2 ** 22);
});

test('parts inside each other, a hundred thousand deep', async () => {
  for (const [slot, list] of [
    ['normalizer', 'normalizers'],
    ['pre_tokenizer', 'pretokenizers'],
    ['decoder', 'decoders'],
    ['post_processor', 'processors'],
  ] as const) {
    let nested: object = { type: 'Fuse' };
    for (let depth = 0; depth < 1e5; ++depth) nested = { type: 'Sequence', [list]: [nested] };
    expect((await failureOf(() => make({ [slot]: nested }))).code).toBe('LUTRA_E_UNSUPPORTED_MODEL');
  }
});

test('values that nothing looks at, a hundred thousand deep', async () => {
  let nested: object = {};
  for (let depth = 0; depth < 1e5; ++depth) nested = { processors: [nested] };
  expect((await failureOf(() => make({ decoder: { type: 'Fuse', nested } }))).code).toBe('LUTRA_E_UNSUPPORTED_MODEL');
  const processor = { type: 'ByteLevel', ...nested };
  expect((await failureOf(() => make({ post_processor: processor }))).code).toBe('LUTRA_E_UNSUPPORTED_MODEL');
});

test('an added token that is no text', async () => {
  const model = { type: 'Unigram', unk_id: 0, vocab: [['<s>', 0], ...letters.map((letter) => [letter, -1])] };
  const decoder = { type: 'Metaspace', replacement: '▁', prepend_scheme: 'always' };
  const tokenizer = make({ model, decoder, added_tokens: [{ id: 0, content: false, normalized: false }] });
  expect((await failureOf(() => tokenizer.decode([1, 0]))).code).toBe('LUTRA_E_UNSUPPORTED_MODEL');
});

test.each([-1, 0.5, letters.length + 1, 2 ** 22, '0', {}])('an id for the unknown that is none: %j', async (unk_id) => {
  const model = { type: 'Unigram', unk_id, vocab: [['<s>', 0], ...letters.map((letter) => [letter, -1])] };
  expect((await failureOf(() => make({ model }))).code).toBe('LUTRA_E_HEADER');
});

test.each([{}, { Regex: 7 }, { Regex: '(' }, { Regex: '' }, 'text', 3, null, undefined])(
  'a pattern that is none: %j',
  async (pattern) => {
    const stage = { type: 'Replace', pattern, content: 'x' };
    expect((await failureOf(() => make({ normalizer: stage }))).code).toBe('LUTRA_E_UNSUPPORTED_MODEL');
  },
);

describe('any change of a tokenizer.json', () => {
  const odd: unknown[] = [
    null,
    0,
    -1,
    1e308,
    2 ** 53,
    0.5,
    '',
    'a',
    '▁',
    true,
    [],
    {},
    [[]],
    ['a', 'b'],
    'x'.repeat(1000),
    'toString',
    '__proto__',
    { type: 'BPE' },
    { type: 'Unigram' },
    { type: 'toString' },
    { Regex: '(a*)*b' },
    { String: '' },
  ];

  test('ends in ids or in a LutraError', () => {
    const random = seeded(23);
    const pick = <T>(list: readonly T[]): T => list[Math.floor(random() * list.length)] as T;
    let refused = 0;
    for (let trial = 0; trial < 4000; ++trial) {
      const json = structuredClone(plain) as Record<string, unknown>;
      for (let changes = 1 + Math.floor(random() * 3); changes > 0; --changes) mutate(json, random, pick);
      try {
        const tokenizer = new Tokenizer(json, {}, 'tokenizer.json');
        const ids = tokenizer.encode('abc aab <s> ö!', { bos: true });
        expect(
          ids.every((id) => Number.isSafeInteger(id) && id >= 0),
          JSON.stringify(json),
        ).toBe(true);
        tokenizer.decode(ids);
      } catch (error) {
        if (!(error instanceof LutraError)) throw error;
        refused++;
      }
    }
    expect(refused).toBeGreaterThan(400);
    expect(refused).toBeLessThan(3600);
  });

  /** Changes one value somewhere inside. */
  function mutate(root: object, random: () => number, pick: <T>(list: readonly T[]) => T): void {
    let at = root as Record<string, unknown>;
    for (;;) {
      const keys = Object.keys(at);
      if (!keys.length) return;
      const key = pick(keys);
      const child = at[key];
      if (typeof child === 'object' && child !== null && random() < 0.7) {
        at = child as Record<string, unknown>;
        continue;
      }
      if (random() < 0.2) delete at[key];
      else at[random() < 0.8 ? key : pick(['type', 'pattern', 'vocab', 'merges', 'content'])] = pick(odd);
      return;
    }
  }
});
