import { type LutraError, type LutraErrorCode, lutraError } from '../errors.js';
import type { ReadLimits } from './limits.js';

export type JsonValue = string | number | boolean | null | JsonValue[] | JsonObject;
export interface JsonObject {
  [key: string]: JsonValue;
}

const space = /[ \t\n\r]*/y;
// All but the quotation mark, the backslash and the control characters below the space.
const plainCharacters = /[ !#-[\]-\uffff]*/y;
const numberToken = /-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?/y;
const escapes: Record<string, string> = {
  '"': '"',
  '\\': '\\',
  '/': '/',
  b: '\b',
  f: '\f',
  n: '\n',
  r: '\r',
  t: '\t',
};
const loneSurrogate = /\p{Surrogate}/u;

/**
 * Reads JSON of strangers, value by value as the caller asks for it, so that a header of millions of entries needs no
 * second copy as objects. Stricter than `JSON.parse`: it refuses duplicate keys, `__proto__`, lone surrogates, numbers
 * beyond the doubles, and whatever goes over the limits. Every failure is `LUTRA_E_HEADER` with the byte it lies at.
 */
export class JsonReader {
  #at = 0;
  #depth = 0;

  /** `where` names the file; `firstByte` is the position of the text in it. */
  constructor(
    private readonly text: string,
    private readonly where: string,
    private readonly limits: ReadLimits,
    private readonly firstByte = 0,
  ) {}

  /** Reads an object; `member` must read the value of the key that it is handed. */
  object(member: (key: string) => void): void {
    this.#open('{', 'an object');
    const seen = new Set<string>();
    if (!this.#take('}')) {
      do {
        const key = this.string();
        if (seen.has(key)) throw this.fail(`the key ${quoted(key)} appears twice`);
        if (key === '__proto__') throw this.fail('the key "__proto__" is not accepted');
        seen.add(key);
        this.#expect(':');
        member(key);
      } while (this.#take(','));
      this.#expect('}');
    }
    this.#depth--;
  }

  /** Reads an array; `item` must read the element whose index it is handed. */
  array(item: (index: number) => void): void {
    this.#open('[', 'an array');
    let length = 0;
    if (!this.#take(']')) {
      do {
        if (length === this.limits.arrayLength)
          throw this.fail('an array is too long', undefined, `at most ${this.limits.arrayLength} elements`);
        item(length++);
      } while (this.#take(','));
      this.#expect(']');
    }
    this.#depth--;
  }

  /** Reads a string of at most `limit` UTF-16 units. */
  string(limit = this.limits.stringLength): string {
    this.#skipSpace();
    if (this.text[this.#at] !== '"') throw this.#wrong('a string');
    const begin = ++this.#at;
    this.#match(plainCharacters);
    let value = this.text.slice(begin, this.#at);
    while (this.text[this.#at] === '\\' && value.length <= limit)
      value += this.#escape() + this.#match(plainCharacters);
    if (value.length > limit) throw this.fail('a string is too long', undefined, `at most ${limit} characters`);
    if (this.text[this.#at] !== '"')
      throw this.fail(
        this.#at === this.text.length ? 'a string does not end' : 'a control character stands in a string',
      );
    this.#at++;
    if (loneSurrogate.test(value)) throw this.fail('a string holds half a surrogate pair');
    return value;
  }

  /** Reads a whole number from 0 to 2^53 - 1, written as digits alone. */
  wholeNumber(): number {
    this.#skipSpace();
    const token = this.#match(numberToken);
    const value = Number(token);
    if (!/^[0-9]+$/.test(token) || !Number.isSafeInteger(value))
      throw this.fail('not a whole number that can be counted with', quoted(token), 'an integer from 0 to 2^53 - 1');
    return value;
  }

  /** Reads any value; objects are plain ones. */
  value(): JsonValue {
    this.#skipSpace();
    const next = this.text[this.#at];
    if (next === '{') {
      const object: JsonObject = {};
      this.object((key) => {
        object[key] = this.value();
      });
      return object;
    }
    if (next === '[') {
      const list: JsonValue[] = [];
      this.array(() => list.push(this.value()));
      return list;
    }
    if (next === '"') return this.string(this.limits.metadataLength);
    for (const [word, value] of [
      ['true', true],
      ['false', false],
      ['null', null],
    ] as const) {
      if (!this.text.startsWith(word, this.#at)) continue;
      this.#at += word.length;
      return value;
    }
    return this.#number();
  }

  /** Refuses anything but white space up to the end. */
  end(): void {
    this.#skipSpace();
    if (this.#at < this.text.length) throw this.fail('there is more text behind the JSON value');
  }

  /** The error for what was just read, at the present position. */
  fail(message: string, found?: string | number, expected?: string | number): LutraError {
    const byte = this.firstByte + Buffer.byteLength(this.text.slice(0, this.#at));
    return lutraError('LUTRA_E_HEADER', { message, where: `${this.where} at byte ${byte}`, found, expected });
  }

  /** UTF-16 units that have been read. */
  protected get position(): number {
    return this.#at;
  }

  #number(): number {
    const token = this.#match(numberToken);
    if (token === '') throw this.#wrong('a JSON value');
    const value = Number(token);
    if (!Number.isFinite(value)) throw this.fail('a number is out of range', token.slice(0, 40));
    return value;
  }

  #escape(): string {
    const letter = this.text[this.#at + 1] ?? '';
    const digits = this.text.slice(this.#at + 2, this.#at + 6);
    if (letter === 'u' && /^[0-9a-fA-F]{4}$/.test(digits)) {
      this.#at += 6;
      return String.fromCharCode(Number.parseInt(digits, 16));
    }
    const character = Object.hasOwn(escapes, letter) ? escapes[letter] : undefined;
    if (character === undefined) throw this.fail('unknown escape in a string');
    this.#at += 2;
    return character;
  }

  #open(bracket: string, what: string): void {
    this.#skipSpace();
    if (this.text[this.#at] !== bracket) throw this.#wrong(what);
    if (this.#depth === this.limits.nesting)
      throw this.fail('values are nested too deeply', undefined, `at most ${this.limits.nesting} levels`);
    this.#depth++;
    this.#at++;
  }

  #take(character: string): boolean {
    this.#skipSpace();
    if (this.text[this.#at] !== character) return false;
    this.#at++;
    return true;
  }

  #expect(character: string): void {
    if (!this.#take(character)) throw this.#wrong(`'${character}'`);
  }

  #wrong(expected: string) {
    const found = this.#at < this.text.length ? quoted(this.text.slice(this.#at, this.#at + 12)) : 'the end';
    return this.fail('malformed JSON', found, expected);
  }

  #skipSpace(): void {
    // Most values follow each other without space; asking first makes large headers three times as fast.
    if (this.text.charCodeAt(this.#at) <= 0x20) this.#match(space);
  }

  #match(pattern: RegExp): string {
    pattern.lastIndex = this.#at;
    const token = pattern.exec(this.text)?.[0] ?? '';
    this.#at += token.length;
    return token;
  }
}

/** The text of UTF-8 bytes. @throws `code` where they are none; a byte order mark is kept, and so refused later. */
export function decodeUtf8(bytes: Uint8Array, where: string, code: LutraErrorCode = 'LUTRA_E_HEADER'): string {
  try {
    return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch (cause) {
    throw lutraError(code, { message: 'the text is not UTF-8', where, cause });
  }
}

/** A name from a file as an error may show it: on one line and not longer than a line. */
export function quoted(name: string): string {
  return JSON.stringify(name.length > 120 ? `${name.slice(0, 117)}...` : name);
}
