import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { StreamDecoder } from '../../../lib/tokenizer/stream-decoder.js';

/** One token a byte, decoded as byte-level tokenizers do. */
const byBytes = (ids: readonly number[]) => new TextDecoder().decode(Uint8Array.from(ids));

/** Tokens with a word mark, whose decoder strips the first space, as sentencepiece-like tokenizers do. */
const words = ['<s>', '▁', '▁a', 'b', '▁▁', 'c▁'];
const byWords = (ids: readonly number[]) =>
  ids
    .map((id) => (id === 0 ? '' : words[id]!.replaceAll('▁', ' ')))
    .join('')
    .replace(/^ /, '');

function streamed(decode: (ids: readonly number[]) => string, ids: number[], context: number[] = []): string[] {
  const decoder = new StreamDecoder(decode, context);
  return [...ids.map((id) => decoder.push(id)), decoder.end()];
}

describe('StreamDecoder', () => {
  it('joins to the whole text and never prints a part of a character', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'binary', maxLength: 40 }), (raw) => {
        const text = new TextDecoder().decode(new TextEncoder().encode(raw)).replaceAll('\ufffd', '');
        const pieces = streamed(byBytes, [...new TextEncoder().encode(text)]);
        expect(pieces.join('')).toBe(text.replace(/^\ufeff/, ''));
        for (const piece of pieces) expect(piece).not.toContain('\ufffd');
      }),
    );
  });

  it('keeps the spaces that the decoder strips at the beginning of a text only', () => {
    fc.assert(
      fc.property(fc.array(fc.integer({ min: 0, max: 5 }), { maxLength: 12 }), fc.nat(12), (ids, cut) => {
        const prompt = ids.slice(0, cut);
        const rest = streamed(byWords, ids.slice(cut), prompt).join('');
        expect(byWords(prompt) + rest).toBe(byWords(ids));
      }),
      { numRuns: 1000 },
    );
  });

  it('gives damaged bytes up after four tokens, and at the end', () => {
    const garbage = [0xff, 0xfe, 0xff, 0xfe];
    const pieces = streamed(byBytes, [...garbage, 0x61, 0xc3]);
    expect(pieces.slice(0, 4)).toEqual(['', '', '', '\ufffd'.repeat(4)]);
    expect(pieces.slice(4)).toEqual(['a', '', '\ufffd']);
  });
});
