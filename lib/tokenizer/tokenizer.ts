import { Tokenizer as Library } from '@huggingface/tokenizers';
import { LutraError, lutraError } from '../errors.js';
import { timeFor, withinTime } from './deadline.js';
import { StreamDecoder } from './stream-decoder.js';
import { checkIds, checkModel, isObject, type JsonObject, refuseUnfaithful } from './tokenizer-checks.js';

export interface EncodeOptions {
  /** Whether the ids begin with the tokenizer's beginning-of-sequence token: once, or not put at all. */
  bos: boolean;
}

/** Text to ids and back, as a model's tokenizer.json says. */
export class Tokenizer {
  /** The token that begins a sequence, or null where the tokenizer has none. */
  readonly bosId: number | null;
  readonly eosIds: readonly number[];
  /** The token that stands for what the vocabulary cannot express, or null. */
  readonly unknownId: number | null;
  /** The largest id, plus one. */
  readonly vocabularySize: number;
  /** Whether the tokenizer puts BOS in front when nothing is said. */
  readonly addsBos: boolean;
  readonly #library: Library;
  readonly #where: string;
  /** Decoders without a regular expression, nearly all, need no watch: it takes longer than they do. */
  readonly #decodesByPattern: boolean;

  /** @throws `LUTRA_E_UNSUPPORTED_MODEL` for a tokenizer.json with parts that are not understood, `LUTRA_E_HEADER` for ids and merges that are none */
  constructor(tokenizerJson: JsonObject, tokenizerConfig: JsonObject, where: string) {
    this.#where = where;
    const { library, decodesByPattern, templateBos } = construct(tokenizerJson, tokenizerConfig, where);
    this.#library = library;
    this.#decodesByPattern = decodesByPattern;
    const vocabulary = this.#library.get_vocab(true);
    this.vocabularySize = largest(vocabulary.values()) + 1;
    const idOf = (token: string | null) => (token === null ? null : (vocabulary.get(token) ?? null));
    this.bosId = idOf(tokenText(tokenizerConfig.bos_token) ?? templateBos);
    const eosId = idOf(tokenText(tokenizerConfig.eos_token));
    this.eosIds = eosId === null ? [] : [eosId];
    this.unknownId = unknownIdOf(tokenizerJson.model, idOf) ?? idOf(tokenText(tokenizerConfig.unk_token));
    if (this.unknownId !== null && this.unknownId >= this.vocabularySize)
      throw lutraError('LUTRA_E_HEADER', {
        message: 'what stands for the unknown has an id beyond the vocabulary',
        where: `${where}: model.unk_id`,
        found: this.unknownId,
        expected: `an id below ${this.vocabularySize}`,
      });
    const said = tokenizerConfig.add_bos_token;
    this.addsBos = this.bosId !== null && (typeof said === 'boolean' ? said : templateBos !== null);
  }

  /**
   * Ids of the text. A text that begins with BOS itself gets no second one.
   *
   * @throws `LUTRA_E_UNSUPPORTED_MODEL` where a pattern of the tokenizer takes very long on this text, or a part of it has no id
   */
  encode(text: string, options: EncodeOptions): number[] {
    const encode = () => this.#library.encode(text, { add_special_tokens: false });
    const watched = () => withinTime(encode, timeFor(text.length), this.#where);
    const { ids, tokens } = understood(watched, this.#where);
    const unknown = ids.findIndex((id: unknown) => !Number.isInteger(id));
    if (unknown >= 0)
      throw lutraError('LUTRA_E_UNSUPPORTED_MODEL', {
        message: 'the tokenizer has no id for a part of the text, and none that stands for the unknown',
        where: this.#where,
        found: JSON.stringify(tokens[unknown]),
      });
    if (options.bos && this.bosId !== null && ids[0] !== this.bosId) return [this.bosId, ...ids];
    return ids;
  }

  /** Text of the ids, special tokens left out. Ids without a token (padding rows of the embedding) print nothing. */
  decode(ids: Iterable<number>): string {
    const known: number[] = [];
    for (const id of ids) if (this.#library.id_to_token(id) !== undefined) known.push(id);
    if (known.length === 0) return '';
    const decode = () =>
      this.#library.decode(known, { skip_special_tokens: true, clean_up_tokenization_spaces: false });
    const watched = () => withinTime(decode, timeFor(known.length), this.#where);
    return understood(this.#decodesByPattern ? watched : decode, this.#where);
  }

  /** Decodes ids as they come. @param context the ids before them, which decide about a leading space. */
  stream(context: readonly number[] = []): StreamDecoder {
    return new StreamDecoder((ids) => this.decode(ids), context);
  }
}

/** Milliseconds; the vocabularies of 256,000 tokens take one or two seconds. */
const constructionTime = 30_000;

/** Everything that looks into the file's values, however deep they lie. */
function construct(tokenizerJson: JsonObject, tokenizerConfig: JsonObject, where: string) {
  const work = () => {
    checkIds(tokenizerJson, where);
    checkModel(tokenizerJson, where);
    refuseUnfaithful(tokenizerJson, where);
    const library = new Library(tokenizerJson, tokenizerConfig);
    library.decode(library.encode('a b').ids);
    return {
      library,
      decodesByPattern: (JSON.stringify(tokenizerJson.decoder) ?? '').includes('"Regex"'),
      templateBos: leadingSpecialToken(tokenizerJson.post_processor),
    };
  };
  return understood(() => withinTime(work, constructionTime, where), where);
}

/** The library checks few of the values that it meets: what it trips over is a fault of the file. */
function understood<T>(work: () => T, where: string): T {
  try {
    return work();
  } catch (cause) {
    if (cause instanceof LutraError) throw cause;
    throw lutraError('LUTRA_E_UNSUPPORTED_MODEL', {
      message: `the tokenizer is not understood: ${cause instanceof Error ? cause.message : String(cause)}`,
      where,
      cause,
    });
  }
}

/** tokenizer_config.json names a token as text or as an object with its text. */
function tokenText(token: unknown): string | null {
  const text = isObject(token) ? token.content : token;
  return typeof text === 'string' ? text : null;
}

/** The special token that a post-processor's template puts first. */
function leadingSpecialToken(postProcessor: unknown): string | null {
  if (!isObject(postProcessor)) return null;
  if (Array.isArray(postProcessor.processors))
    return postProcessor.processors.map(leadingSpecialToken).find((token) => token !== null) ?? null;
  const first: unknown = Array.isArray(postProcessor.single) ? postProcessor.single[0] : null;
  const special = isObject(first) ? first.SpecialToken : null;
  return isObject(special) && typeof special.id === 'string' ? special.id : null;
}

function unknownIdOf(model: unknown, idOf: (token: string | null) => number | null): number | null {
  if (!isObject(model)) return null;
  if (typeof model.unk_id === 'number') return model.unk_id;
  return idOf(tokenText(model.unk_token));
}

function largest(values: Iterable<number>): number {
  let max = -1;
  for (const value of values) max = Math.max(max, value);
  return max;
}
