/** Small tokenizers of every model kind that the library knows, each with other stages. */
const letters = [...'abcdefghijklmnopqrstuvwxyz \u2581\u00f6!'];
const special = (id: number, content: string) => ({ id, content, special: true, normalized: false });
const vocabulary = (...tokens: string[]) => Object.fromEntries(tokens.map((token, id) => [token, id]));
const words = ['<unk>', '<s>', '</s>', ...letters, 'ab', 'abc', 'aa'];

const bpe = {
  version: '1.0',
  added_tokens: [special(0, '<unk>'), special(1, '<s>'), special(2, '</s>')],
  normalizer: { type: 'Sequence', normalizers: [{ type: 'NFC' }, { type: 'Prepend', prepend: '\u2581' }] } as object,
  pre_tokenizer: null as object | null,
  post_processor: {
    type: 'TemplateProcessing',
    single: [{ SpecialToken: { id: '<s>', type_id: 0 } }, { Sequence: { id: 'A', type_id: 0 } }],
    pair: [],
    special_tokens: { '<s>': { id: '<s>', ids: [1], tokens: ['<s>'] } },
  } as object | null,
  decoder: { type: 'Sequence', decoders: [{ type: 'Replace', pattern: { String: '\u2581' }, content: ' ' }] } as object,
  model: {
    type: 'BPE',
    unk_token: '<unk>',
    byte_fallback: false,
    vocab: vocabulary(...words),
    merges: ['a b', 'ab c', 'a a'],
  } as object,
};

const byteLevel = {
  ...bpe,
  normalizer: { type: 'Lowercase' },
  pre_tokenizer: {
    type: 'Sequence',
    pretokenizers: [
      { type: 'Split', pattern: { Regex: '\\p{L}+|\\p{N}| ' }, behavior: 'Isolated', invert: false },
      { type: 'ByteLevel', add_prefix_space: false, use_regex: false },
    ],
  },
  post_processor: null,
  decoder: { type: 'ByteLevel' },
};

const unigram = {
  ...bpe,
  normalizer: { type: 'Replace', pattern: { String: ' ' }, content: '\u2581' },
  decoder: { type: 'Metaspace', replacement: '\u2581', prepend_scheme: 'always' },
  model: { type: 'Unigram', unk_id: 0, vocab: words.map((token, index) => [token, -index]) },
};

const wordPiece = {
  ...bpe,
  normalizer: { type: 'BertNormalizer', lowercase: true },
  pre_tokenizer: { type: 'BertPreTokenizer' },
  decoder: { type: 'WordPiece', prefix: '##', cleanup: true },
  model: { type: 'WordPiece', unk_token: '<unk>', continuing_subword_prefix: '##', vocab: vocabulary(...words) },
};

export const tokenizers: readonly Record<string, unknown>[] = [bpe, byteLevel, unigram, wordPiece];
