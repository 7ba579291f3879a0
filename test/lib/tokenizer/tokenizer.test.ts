import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { loadTokenizer } from '../../../lib/inference/index.js';
import { Tokenizer } from '../../../lib/tokenizer/index.js';
import { describeWithShared, sharedModel, sharedText } from '../../shared-material.js';

/** A byte-level tokenizer of 256 bytes and a few special tokens; the byte alphabet is GPT-2's. */
function byteTokenizer(changes: { json?: object; config?: object } = {}): Tokenizer {
  const printable = (b: number) => (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174;
  let next = 256;
  const alphabet = Array.from({ length: 256 }, (_, b) => String.fromCodePoint(printable(b) ? b : next++));
  const special = ['<s>', '</s>'].map((content, i) => ({
    id: 256 + i,
    content,
    single_word: false,
    lstrip: false,
    rstrip: false,
    normalized: false,
    special: true,
  }));
  const json = {
    version: '1.0',
    added_tokens: special,
    normalizer: null,
    pre_tokenizer: { type: 'ByteLevel', add_prefix_space: false, trim_offsets: true, use_regex: true },
    post_processor: null,
    decoder: { type: 'ByteLevel', add_prefix_space: true, trim_offsets: true, use_regex: true },
    model: { type: 'BPE', vocab: Object.fromEntries(alphabet.map((c, i) => [c, i])), merges: [] },
    ...changes.json,
  };
  const config = { bos_token: '<s>', eos_token: { content: '</s>' }, ...changes.config };
  return new Tokenizer(json, config, 'tokenizer.json');
}

describe('Tokenizer', () => {
  it('puts BOS once or not at all', () => {
    const tokenizer = byteTokenizer();
    expect(tokenizer).toMatchObject({ bosId: 256, eosIds: [257], unknownId: null, vocabularySize: 258 });
    expect(tokenizer.encode('ab', { bos: false })).toEqual([97, 98]);
    expect(tokenizer.encode('ab', { bos: true })).toEqual([256, 97, 98]);
    expect(tokenizer.encode('<s>ab', { bos: true })).toEqual([256, 97, 98]);
    expect(tokenizer.encode('', { bos: true })).toEqual([256]);
    expect(byteTokenizer({ config: { bos_token: null } }).encode('a', { bos: true })).toEqual([97]);
  });

  it('knows whether BOS is put by default: as tokenizer_config.json says, else as the template does', () => {
    const template = { type: 'TemplateProcessing', single: [{ SpecialToken: { id: '<s>', type_id: 0 } }], pair: [] };
    const json = { post_processor: { type: 'Sequence', processors: [{ ...template, special_tokens: {} }] } };
    expect(byteTokenizer().addsBos).toBe(false);
    expect(byteTokenizer({ json }).addsBos).toBe(true);
    expect(byteTokenizer({ json, config: { bos_token: null } })).toMatchObject({ addsBos: true, bosId: 256 });
    expect(byteTokenizer({ json, config: { add_bos_token: false } }).addsBos).toBe(false);
    expect(byteTokenizer({ config: { add_bos_token: true } }).addsBos).toBe(true);
  });

  it('round-trips any text, without its special tokens and ids beyond the vocabulary', () => {
    const tokenizer = byteTokenizer();
    const text = "Grüße, 世界! 👩‍👩‍👧 don't   stop .\n\tTabs\u00a0and \u{1F600}";
    const ids = tokenizer.encode(text, { bos: true });
    expect(tokenizer.decode(ids)).toBe(text);
    expect(tokenizer.decode([...ids, 257, 4000])).toBe(text);
    const stream = tokenizer.stream();
    expect(ids.map((id) => stream.push(id)).join('') + stream.end()).toBe(text);
  });

  it('refuses tokenizers that it does not understand', () => {
    const unsupported = expect.objectContaining({ code: 'LUTRA_E_UNSUPPORTED_MODEL', where: 'tokenizer.json' });
    expect(() => byteTokenizer({ json: { model: { type: 'Quantum', vocab: {} } } })).toThrow(
      expect.objectContaining({ code: 'LUTRA_E_UNSUPPORTED_MODEL', where: 'tokenizer.json: model.type' }),
    );
    expect(() => byteTokenizer({ json: { pre_tokenizer: { type: 'Unheard' } } })).toThrow(unsupported);
    const split = { type: 'Split', pattern: { String: 'a' }, behavior: 'MergedWithNext', invert: false };
    expect(() => byteTokenizer({ json: { pre_tokenizer: { type: 'Sequence', pretokenizers: [split] } } })).toThrow(
      expect.objectContaining({
        code: 'LUTRA_E_UNSUPPORTED_MODEL',
        where: 'tokenizer.json: pre_tokenizer.pretokenizers.0.behavior',
      }),
    );
  });
});

describe('loadTokenizer', () => {
  let dir: string;
  beforeEach(() => {
    dir = mkdtempSync(join(tmpdir(), 'lutra-tokenizer-'));
  });
  afterEach(() => rmSync(dir, { recursive: true }));

  it('names a missing file and one that is not JSON', async () => {
    await expect(loadTokenizer(dir)).rejects.toMatchObject({
      code: 'LUTRA_E_NOT_FOUND',
      where: join(dir, 'tokenizer.json'),
    });
    for (const text of ['{"model":', '[]', '']) {
      writeFileSync(join(dir, 'tokenizer.json'), text);
      await expect(loadTokenizer(dir)).rejects.toMatchObject({ code: 'LUTRA_E_HEADER' });
    }
    writeFileSync(join(dir, 'tokenizer.json'), '{}');
    await expect(loadTokenizer(dir)).rejects.toMatchObject({ code: 'LUTRA_E_UNSUPPORTED_MODEL' });
  });
});

describeWithShared('tokenizers of real models', () => {
  /** Counts of models/README.md: documents and counted targets of a running count of ids above `limit`. */
  it.each([
    { model: 'stories260k', limit: 8192, context: 512, stories: 27, targets: 8357 },
    { model: 'babyllama-tok361', limit: 8192, context: 256, stories: 12, targets: 3060 },
    { model: 'tinystories-656k', limit: 6000, context: 512, stories: null, targets: 5967 },
    { model: 'demo', limit: 1500, context: 256, stories: null, targets: 1348 },
  ] as const)('$model encodes the evaluation stories to the known counts', async (row) => {
    const tokenizer = await loadTokenizer(sharedModel(row.model));
    const text = await readFile(sharedText('tinystories-evaluation.txt'), 'utf8');
    const stories = text.split('<|endoftext|>').map((story) => story.trim());
    let [count, targets, used] = [0, 0, 0];
    while (count <= row.limit) {
      const story = stories[used++]!;
      const ids = tokenizer.encode(story, { bos: true });
      count += ids.length;
      targets += ids.slice(1, row.context).filter((id) => id !== tokenizer.unknownId).length;
      expect(tokenizer.decode(ids)).toBe(story);
      const stream = tokenizer.stream();
      expect(ids.map((id) => stream.push(id)).join('') + stream.end()).toBe(story);
    }
    expect(targets).toBe(row.targets);
    if (row.stories !== null) expect(used).toBe(row.stories);
  });

  it('round-trips characters by their bytes where the vocabulary has them', async () => {
    for (const model of ['stories260k', 'babyllama-tok361', 'demo'] as const) {
      const tokenizer = await loadTokenizer(sharedModel(model));
      const text = 'Grüße  世界 😀 end';
      expect(tokenizer.decode(tokenizer.encode(text, { bos: true }))).toBe(text);
    }
  });

  it('knows the special tokens', async () => {
    const known = async (model: Parameters<typeof sharedModel>[0]) => loadTokenizer(sharedModel(model));
    expect(await known('stories260k')).toMatchObject({ bosId: 1, eosIds: [2], unknownId: 0, vocabularySize: 512 });
    expect(await known('tinystories-656k')).toMatchObject({ bosId: 1, eosIds: [2], unknownId: 0, addsBos: true });
    expect(await known('demo')).toMatchObject({ bosId: 0, eosIds: [0], unknownId: null, vocabularySize: 1024 });
  });
});
