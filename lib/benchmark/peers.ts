import type { BurstLength } from './burst.js';
import type { BenchCase } from './cases.js';
import type { Entry } from './entries.js';

/** Another implementation of the product, measured beside lutra. */
export interface Peer {
  /** For rows. */
  name: string;
  /** What it has for a case: none, one or several ways. */
  entries(one: BenchCase): Promise<Entry[]>;
  dispose(): Promise<void>;
}

/** Entries of a peer, whose failures end nothing but their own measurement. @param by whose they are, for the row */
export async function peerEntries(by: string, entries: Promise<Entry[]>): Promise<Entry[]> {
  try {
    return (await entries).map((entry) => new PeerEntry(entry));
  } catch (error) {
    return [failedEntry(by, error)];
  }
}

const messageOf = (error: unknown): string => (error instanceof Error ? error.message : String(error));

/** What a peer that could not begin is known by. */
const failedEntry = (by: string, error: unknown): Entry => ({
  by,
  mode: '-',
  work: Number.NaN,
  matrices: 0,
  burst: () => [],
  error: () => Number.NaN,
  failure: messageOf(error),
  dispose() {},
});

class PeerEntry implements Entry {
  readonly #entry: Entry;
  failure: string | null = null;

  constructor(entry: Entry) {
    this.#entry = entry;
  }

  get by(): string {
    return this.#entry.by;
  }
  get mode(): string {
    return this.#entry.mode;
  }
  get work(): number {
    return this.#entry.work;
  }
  get matrices(): number {
    return this.#entry.matrices;
  }

  burst(length: BurstLength): Promise<number[]> {
    return this.#unlessFailed([], () => this.#entry.burst(length));
  }
  error(): Promise<number> {
    return this.#unlessFailed(Number.NaN, () => this.#entry.error());
  }
  dispose(): Promise<void> {
    return this.#unlessFailed(undefined, () => this.#entry.dispose());
  }

  async #unlessFailed<Value>(otherwise: Value, act: () => Value | Promise<Value>): Promise<Value> {
    if (this.failure !== null) return otherwise;
    try {
      return await act();
    } catch (error) {
      this.failure = messageOf(error);
      return otherwise;
    }
  }
}
