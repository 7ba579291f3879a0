import { addon, taskIds } from '../native/index.js';
import { Tensor } from '../tensor/index.js';
import type { Contestant } from './rounds.js';

/** More than any cache holds, so that reading it once is reading memory. */
const probeBytes = 1 << 30;

/** Memory that is read from end to end, once a round: what memory gives in the very seconds of the other bursts. */
export class BandwidthProbe {
  readonly #memory: Tensor;

  constructor() {
    this.#memory = Tensor.zeros('i32', [probeBytes / 4]);
    // Memory that was never written is one page of zeros again and again, out of a cache.
    this.#memory.fill(1);
  }

  /** Reads with so many lanes. Its work is in bytes. */
  contestant(threads: number): Contestant {
    const burst = async () => {
      const begin = performance.now();
      await addon().task(taskIds.readThrough, [this.#memory.native], [], threads, null);
      return [performance.now() - begin];
    };
    return { work: probeBytes, burst };
  }

  dispose(): void {
    this.#memory.dispose();
  }
}
