/** Tokens after which a pending replacement character is taken for damage: a character has at most four bytes. */
const maxPending = 4;

/**
 * Decodes ids one by one into pieces that never split a character: bytes of a character that is not complete yet wait
 * for the next ids. The pieces joined are what decoding all ids at once gives, for text that is valid UTF-8.
 */
export class StreamDecoder {
  readonly #decode: (ids: readonly number[]) => string;
  /** Ids already printed that the decoder still needs to see, so that it keeps the leading space of what follows. */
  #context: readonly number[];
  #contextText: string;
  #pending: number[] = [];

  /** @param context ids that precede the stream, for example the prompt's. */
  constructor(decode: (ids: readonly number[]) => string, context: readonly number[] = []) {
    this.#decode = decode;
    this.#context = [...context];
    this.#contextText = decode(this.#context);
  }

  /** The text that `id` completes; often empty for a part of a character, always for a special token. */
  push(id: number): string {
    this.#pending.push(id);
    const text = this.#pendingText();
    if (text.endsWith('\ufffd') && this.#pending.length < maxPending) return '';
    return this.#settle(text);
  }

  /** What is left, replacement characters included where the ids ended inside a character. */
  end(): string {
    return this.#pending.length === 0 ? '' : this.#settle(this.#pendingText());
  }

  #pendingText(): string {
    return this.#decode([...this.#context, ...this.#pending]).slice(this.#contextText.length);
  }

  #settle(text: string): string {
    // Ids that print nothing still count: a stripped space is stripped once. Damaged bytes would change how the next
    // ids decode and are left out.
    if (text === '') this.#context = [...this.#context, ...this.#pending];
    else if (!text.endsWith('\ufffd')) this.#context = this.#pending;
    this.#contextText = this.#decode(this.#context);
    this.#pending = [];
    return text;
  }
}
