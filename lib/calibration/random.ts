/**
 * A seeded stream of random numbers, the same on every machine: xoshiro128++ (Blackman and Vigna, "Scrambled linear
 * pseudorandom number generators", 2021), its state filled from the seed by splitmix32 (MurmurHash3's finaliser on a
 * Weyl sequence).
 */
export class Random {
  readonly #state: Uint32Array;

  /** @param seed a whole number from 0 to 2^53 - 1. */
  constructor(seed: number) {
    let counter = (seed >>> 0) ^ Math.imul(Math.floor(seed / 2 ** 32), 0x85ebca6b);
    this.#state = Uint32Array.from({ length: 4 }, () => {
      counter = (counter + 0x9e3779b9) | 0;
      let mixed = Math.imul(counter ^ (counter >>> 16), 0x85ebca6b);
      mixed = Math.imul(mixed ^ (mixed >>> 13), 0xc2b2ae35);
      return mixed ^ (mixed >>> 16);
    });
    // All zeros is the one state that the generator never leaves.
    if (this.#state.every((word) => word === 0)) this.#state[0] = 1;
  }

  /** A whole number from 0 to 2^32 - 1. */
  nextWord(): number {
    const s = this.#state;
    const sum = (s[0]! + s[3]!) | 0;
    const result = (rotate(sum, 7) + s[0]!) >>> 0;
    const shifted = s[1]! << 9;
    s[2]! ^= s[0]!;
    s[3]! ^= s[1]!;
    s[1]! ^= s[2]!;
    s[0]! ^= s[3]!;
    s[2]! ^= shifted;
    s[3] = rotate(s[3]!, 11);
    return result;
  }

  /** A number in [0, 1) with 53 random bits. */
  next(): number {
    const high = this.nextWord() >>> 5;
    return (high * 2 ** 26 + (this.nextWord() >>> 6)) / 2 ** 53;
  }

  /** A whole number in [0, bound), every one equally likely. @param bound 1 to 2^53 - 1. */
  below(bound: number): number {
    // Numbers past the last whole multiple of the bound are drawn again.
    const limit = 2 ** 53 - (2 ** 53 % bound);
    for (;;) {
      const drawn = this.next() * 2 ** 53;
      if (drawn < limit) return drawn % bound;
    }
  }
}

const rotate = (word: number, by: number): number => (word << by) | (word >>> (32 - by));
