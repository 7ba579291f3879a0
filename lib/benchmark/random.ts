/** Reproducible numbers for operands: xorshift32. */
export class Random {
  #state: number;

  constructor(seed: number) {
    this.#state = (Math.imul(seed, 2654435761) + 88172645) >>> 0 || 1;
  }

  /** A whole number of 32 bits. */
  bits(): number {
    this.#state ^= this.#state << 13;
    this.#state ^= this.#state >>> 17;
    this.#state ^= this.#state << 5;
    return this.#state >>> 0;
  }

  /** Above 0, at most 1. */
  share(): number {
    return (this.bits() + 1) / 2 ** 32;
  }

  /** Normally distributed, mean 0, variance 1. */
  normal(): number {
    return Math.sqrt(-2 * Math.log(this.share())) * Math.cos(2 * Math.PI * this.share());
  }

  /** Bytes below 2^bits, evenly distributed. */
  codes(count: number, bits: number): Uint8Array {
    const words = Uint32Array.from({ length: Math.ceil(count / 4) }, () => this.bits());
    const codes = new Uint8Array(words.buffer, 0, count);
    for (let i = 0; i < count; i++) codes[i] = (codes[i] ?? 0) & (2 ** bits - 1);
    return codes;
  }

  normals(count: number): Float32Array {
    return Float32Array.from({ length: count }, () => this.normal());
  }
}
