import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, expect, test } from 'vitest';
import {
  corpusBytes,
  drawHeldOut,
  drawWindows,
  largestText,
  readCorpus,
  tokenizeCorpus,
} from '../../../lib/calibration/index.js';
import { Tokenizer } from '../../../lib/tokenizer/index.js';

const folder = mkdtempSync(join(tmpdir(), 'lutra-corpus-'));
afterAll(() => rmSync(folder, { recursive: true }));

/** One id a word, BOS 0; blanks belong to nothing. */
function wordTokenizer(): Tokenizer {
  const vocab: Record<string, number> = { '<s>': 0, '<unk>': 1, a: 200, b: 201 };
  for (let i = 0; i < 100; i++) vocab[`w${i}`] = i + 2;
  const special = (id: number, content: string) => ({
    id,
    content,
    single_word: false,
    lstrip: false,
    rstrip: false,
    normalized: false,
    special: true,
  });
  return new Tokenizer(
    {
      added_tokens: [special(0, '<s>'), special(1, '<unk>')],
      normalizer: null,
      pre_tokenizer: { type: 'Whitespace' },
      post_processor: null,
      decoder: null,
      model: { type: 'WordLevel', vocab, unk_token: '<unk>' },
    },
    { bos_token: '<s>' },
    'words',
  );
}

const words = (count: number, offset = 0) => Array.from({ length: count }, (_, i) => `w${(i + offset) % 100}`);

test('a text is no pipe, device or directory, and no larger than a string can be', async () => {
  const pipe = join(folder, 'pipe');
  execFileSync('mkfifo', [pipe]);
  for (const file of [pipe, '/dev/zero', folder])
    for (const read of [readCorpus, corpusBytes])
      await expect(read({ file })).rejects.toMatchObject({ code: 'LUTRA_E_IO', where: file });
  const file = join(folder, 'sparse');
  writeFileSync(file, 'a');
  truncateSync(file, largestText + 1);
  for (const read of [readCorpus, corpusBytes])
    await expect(read({ file })).rejects.toMatchObject({
      code: 'LUTRA_E_OPTION',
      where: file,
      expected: expect.stringContaining(`${largestText}`),
    });
  truncateSync(file, largestText);
  expect(await corpusBytes({ file })).toBe(largestText);
});

test('the bytes of a corpus are those of its text in UTF-8', async () => {
  expect(await corpusBytes({ texts: ['aé', '語'] })).toBe(6);
  await expect(corpusBytes({ texts: [1] as unknown as string[] })).rejects.toMatchObject({ code: 'LUTRA_E_OPTION' });
  await expect(corpusBytes({ file: join(folder, 'none') })).rejects.toMatchObject({ code: 'LUTRA_E_NOT_FOUND' });
});

test('encoding tells how far it is, and ends with all of the text', async () => {
  const corpus = await readCorpus({ texts: [words(20_000).join(' '), 'w1'] });
  const told: number[] = [];
  await tokenizeCorpus(corpus, wordTokenizer(), undefined, (done, total) => {
    expect(total).toBe(corpus.documents.join('').length);
    told.push(done);
  });
  expect(told).toEqual([...told].sort((a, b) => a - b));
  expect(told.at(-1)).toBe(corpus.documents.join('').length);
});

test('a separator cuts a file into trimmed documents; without one it stays whole', async () => {
  const file = join(folder, 'text.txt');
  writeFileSync(file, '  first \n<|end|>\n<|end|> second\n');
  expect((await readCorpus({ file, separator: '<|end|>' })).documents).toEqual(['first', 'second']);
  const whole = await readCorpus({ file });
  expect(whole.documents).toEqual(['  first \n<|end|>\n<|end|> second\n']);
  expect(whole.sha256).toMatch(/^[0-9a-f]{64}$/);
});

test('strings are documents, and their hash knows where one ends', async () => {
  const one = await readCorpus({ texts: ['ab', 'c'] });
  const other = await readCorpus({ texts: ['a', 'bc'] });
  expect(one.documents).toEqual(['ab', 'c']);
  expect(one.sha256).not.toBe(other.sha256);
});

test('a missing file, a file that is not text and no text are refused by name', async () => {
  await expect(readCorpus({ file: join(folder, 'none') })).rejects.toMatchObject({ code: 'LUTRA_E_NOT_FOUND' });
  const file = join(folder, 'binary');
  writeFileSync(file, Uint8Array.of(0x61, 0xff, 0xfe));
  await expect(readCorpus({ file })).rejects.toMatchObject({ code: 'LUTRA_E_OPTION', where: file });
  await expect(readCorpus({ texts: ['|', ' '], separator: '|' })).rejects.toMatchObject({
    code: 'LUTRA_E_CALIBRATION_TOO_SHORT',
  });
  await expect(readCorpus({ texts: ['a'], separator: '' })).rejects.toMatchObject({ code: 'LUTRA_E_OPTION' });
});

test('a source that is none, or two, and a separator that cuts nowhere are refused', async () => {
  for (const source of [{}, { file: 'a', texts: ['a'] }])
    await expect(readCorpus(source as { file: string })).rejects.toMatchObject({
      code: 'LUTRA_E_OPTION',
      where: 'calibration',
    });
  await expect(readCorpus({ texts: ['a\n\nb', 'c'], separator: '\\n\\n' })).rejects.toMatchObject({
    code: 'LUTRA_E_OPTION',
    where: 'calibration.separator',
    found: '"\\\\n\\\\n"',
    hint: expect.stringContaining("$'\\n\\n'"),
  });
  expect((await readCorpus({ texts: ['a\n\nb', 'c'], separator: '\n\n' })).documents).toEqual(['a', 'b', 'c']);
});

test('every document begins with BOS once, however many pieces it is tokenized in', async () => {
  const long = words(20_000).join(' ');
  const tokens = await tokenizeCorpus(await readCorpus({ texts: ['w1 w2', long] }), wordTokenizer());
  expect([...tokens.slice(0, 4)]).toEqual([0, 3, 4, 0]);
  expect([...tokens.slice(4)]).toEqual(words(20_000).map((word) => Number(word.slice(1)) + 2));
});

test('tokenizing ends with the reason of an abort', async () => {
  const reason = new Error('enough');
  const corpus = await readCorpus({ texts: [words(400_000).join(' ')] });
  const controller = new AbortController();
  const running = tokenizeCorpus(corpus, wordTokenizer(), controller.signal);
  setTimeout(() => controller.abort(reason), 10);
  await expect(running).rejects.toBe(reason);
});

test('windows are stretches of the stream, as many and as long as asked, fixed by the seed', () => {
  const stream = Int32Array.from({ length: 1000 }, (_, i) => i);
  const options = { samples: 64, sequenceLength: 37, seed: 5 };
  const windows = drawWindows(stream, options, 'text');
  expect(windows).toHaveLength(64);
  for (const window of windows) expect(window).toEqual(stream.slice(window[0], window[0]! + 37));
  expect(new Set(windows.map((window) => window[0])).size).toBeGreaterThan(50);
  expect(drawWindows(stream, options, 'text')).toEqual(windows);
  expect(drawWindows(stream, { ...options, seed: 6 }, 'text')).not.toEqual(windows);
});

test('the first and the last window of the stream are both drawn', () => {
  const stream = Int32Array.of(0, 1, 2);
  const begins = drawWindows(stream, { samples: 50, sequenceLength: 2, seed: 0 }, 'text').map((window) => window[0]);
  expect(new Set(begins)).toEqual(new Set([0, 1]));
});

test('a text shorter than a window is refused with both numbers', () => {
  const options = { samples: 1, sequenceLength: 11, seed: 0 };
  expect(() => drawWindows(new Int32Array(10), options, 'short.txt')).toThrow(
    expect.objectContaining({
      code: 'LUTRA_E_CALIBRATION_TOO_SHORT',
      where: 'short.txt',
      found: '10 tokens',
      expected: 'at least 11',
    }),
  );
  expect(drawWindows(new Int32Array(11), options, 'fits.txt')).toHaveLength(1);
});

test('windows held out share no token with the others, and reach everything that those leave', () => {
  const stream = Int32Array.from({ length: 60 }, (_, i) => i);
  const options = { samples: 3, sequenceLength: 7, seed: 2 };
  const taken = new Set(drawWindows(stream, options, 'text').flatMap((window) => [...window]));
  const free = [...stream.keys()].filter(
    (begin) => begin + 7 <= 60 && !stream.slice(begin, begin + 7).some((token) => taken.has(token)),
  );
  const windows = drawHeldOut(stream, options, 1000, 'text');
  expect(windows).toHaveLength(1000);
  for (const window of windows) expect(window).toEqual(stream.slice(window[0], window[0]! + 7));
  expect(new Set(windows.map((window) => window[0]))).toEqual(new Set(free));
  expect(drawHeldOut(stream, options, 1000, 'text')).toEqual(windows);
  expect(drawHeldOut(stream, options, 10, 'text')).toEqual(windows.slice(0, 10));
  expect(drawHeldOut(stream, options, 0, 'text')).toEqual([]);
});

test('windows that cannot be held out are refused', () => {
  const stream = new Int32Array(20);
  for (const samples of [1, 200])
    expect(() => drawHeldOut(stream, { samples, sequenceLength: 15, seed: 0 }, 1, 'text')).toThrow(
      expect.objectContaining({ code: 'LUTRA_E_CALIBRATION_TOO_SHORT', where: 'text' }),
    );
});
