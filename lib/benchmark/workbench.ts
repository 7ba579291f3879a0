import { BandwidthProbe } from './bandwidth.js';
import { type BenchCase, layoutOf } from './cases.js';
import { type Entry, lutGemmEntry, type Peer } from './entries.js';
import { type Contestant, type Effort, interleave } from './rounds.js';
import { type BenchRow, benchRow } from './rows.js';
import { Weights } from './weights.js';

/** Weights kept for later cases; two sets of cold ones are in use at once where cases are compared. */
const keptBytes = 3e9;

export interface BenchOptions {
  effort: Effort;
  peers?: readonly Peer[];
  signal?: AbortSignal;
  /** Called with every row as soon as it is known. */
  onRow?(row: BenchRow): void;
}

/** Owns what cases share: the memory of the probe, and weights, which take longer to make than to time. */
export class Workbench {
  readonly #weights = new Map<string, Weights>();
  #probe: BandwidthProbe | null = null;

  /** A reader of memory, its work in bytes. */
  probe(threads: number): Contestant {
    this.#probe ??= new BandwidthProbe();
    return this.#probe.contestant(threads);
  }

  /** lutra's own contestant for a case. The next call may take away the weights of entries but the last one's. */
  entry(one: BenchCase): Entry {
    return lutGemmEntry(one, this.#weightsOf(one));
  }

  dispose(): void {
    for (const weights of this.#weights.values()) weights.dispose();
    this.#weights.clear();
    this.#probe?.dispose();
    this.#probe = null;
  }

  [Symbol.dispose](): void {
    this.dispose();
  }

  #weightsOf(one: BenchCase): Weights {
    const layout = layoutOf(one);
    const cold = one.caches === 'cold';
    const key = JSON.stringify([layout, cold]);
    const weights = this.#weights.get(key) ?? new Weights(layout, cold);
    // The map lists the longest unused first.
    this.#weights.delete(key);
    this.#weights.set(key, weights);
    let kept = [...this.#weights.values()].reduce((sum, { byteLength }) => sum + byteLength, 0);
    for (const [old, unused] of [...this.#weights].slice(0, -2)) {
      if (kept <= keptBytes) break;
      kept -= unused.byteLength;
      unused.dispose();
      this.#weights.delete(old);
    }
    return weights;
  }
}

/** Times cases one after the other, each beside the probe and its peers. */
export async function runCases(cases: readonly BenchCase[], options: BenchOptions): Promise<BenchRow[]> {
  using workbench = new Workbench();
  const rows: BenchRow[] = [];
  for (const one of cases) {
    options.signal?.throwIfAborted();
    const entries = [workbench.entry(one)];
    try {
      for (const peer of options.peers ?? []) entries.push(...(await peer.entries(one)));
      const probe = workbench.probe(one.threads);
      const [probed = [], ...rounds] = await interleave([probe, ...entries], options.effort, options.signal);
      for (const [i, entry] of entries.entries()) {
        const row = await benchRow(one, entry, rounds[i] ?? [], probe, probed);
        rows.push(row);
        options.onRow?.(row);
      }
    } finally {
      for (const entry of entries) await entry.dispose();
    }
  }
  return rows;
}
