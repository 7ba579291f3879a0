import { BandwidthProbe } from './bandwidth.js';
import { type BenchCase, layoutOf } from './cases.js';
import { type Entry, lutGemmEntry } from './entries.js';
import { type Peer, peerEntries } from './peers.js';
import { type Contestant, type Effort, interleave } from './rounds.js';
import { type BenchRow, benchRow } from './rows.js';
import { Weights } from './weights.js';

/** Weights kept for later cases; two sets of cold ones are in use at once where cases are compared. */
const keptBytes = 3e9;

export interface RunOptions {
  /** Its milliseconds are those of one row. */
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
  async entry(one: BenchCase, signal?: AbortSignal): Promise<Entry> {
    return lutGemmEntry(one, await this.#weightsOf(one, signal));
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

  async #weightsOf(one: BenchCase, signal?: AbortSignal): Promise<Weights> {
    const layout = layoutOf(one);
    const cold = one.caches === 'cold';
    const key = JSON.stringify([layout, one.rank, cold]);
    const weights = this.#weights.get(key) ?? (await Weights.make(layout, one.rank, cold, signal));
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

/**
 * Times cases, the modes of one product together and each beside the probe and its peers.
 *
 * @throws what `checkLayout` does, before anything is timed, where lutra has no such weights
 */
export async function runCases(cases: readonly BenchCase[], options: RunOptions): Promise<BenchRow[]> {
  for (const one of cases) layoutOf(one);
  using workbench = new Workbench();
  const rows: BenchRow[] = [];
  for (const [first, ...others] of byProduct(cases))
    rows.push(...(await runTogether(first, others, workbench, options)));
  return rows;
}

type Product = [BenchCase, ...BenchCase[]];

/** Cases that differ in nothing but the mode. */
function byProduct(cases: readonly BenchCase[]): Product[] {
  const products = new Map<string, Product>();
  for (const one of cases) {
    const key = JSON.stringify({ ...one, mode: null });
    const product = products.get(key);
    if (product) product.push(one);
    else products.set(key, [one]);
  }
  return [...products.values()];
}

async function runTogether(
  first: BenchCase,
  others: readonly BenchCase[],
  workbench: Workbench,
  { effort, peers = [], signal, onRow }: RunOptions,
): Promise<BenchRow[]> {
  signal?.throwIfAborted();
  const entries: Entry[] = [];
  const rows: BenchRow[] = [];
  try {
    for (const one of [first, ...others]) entries.push(await workbench.entry(one, signal));
    for (const peer of peers) entries.push(...(await peerEntries(peer.name, peer.entries(first))));
    const probe = workbench.probe(first.threads);
    const milliseconds = entries.length * effort.milliseconds;
    const [probed = [], ...rounds] = await interleave([probe, ...entries], { ...effort, milliseconds }, signal);
    for (const [i, entry] of entries.entries()) {
      const row = await benchRow(first, entry, rounds[i] ?? [], probe, probed);
      rows.push(row);
      onRow?.(row);
    }
    return rows;
  } finally {
    for (const entry of entries) await entry.dispose();
  }
}
