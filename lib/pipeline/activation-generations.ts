import { join } from 'node:path';
import { crc32c } from '../formats/index.js';
import { Tensor } from '../tensor/index.js';
import { ActivationStore, type Activations } from './activation-store.js';
import { closeAll, closingOnFailure } from './closing.js';
import { damagedWork } from './damaged-work.js';

/** What tells whether activations are those that were written: CRC-32C of every window. */
export type Checksums = readonly number[];

/** Activations that an earlier run has left. */
export interface KeptActivations {
  /** Of how many finished blocks they are the result. */
  blocks: number;
  checksums: Checksums;
}

interface Shape {
  sequenceLength: number;
  hiddenSize: number;
}

/**
 * What enters a block, and what will enter the next, in two files by turns: those that a block reads stay whole while the next
 * ones are written, so that a run that ends meanwhile can begin that block again.
 */
export class ActivationGenerations implements Activations {
  /** Checksums of the windows in each file. */
  readonly #checksums: [number[], number[]] = [[], []];

  private constructor(
    private readonly files: readonly [ActivationStore, ActivationStore],
    /** Generation n is what enters block n, and lies in file n mod 2; −1 where nothing does yet. */
    private generation: number,
    private readonly signal: AbortSignal | undefined,
  ) {}

  /**
   * Two files `<name>.0.scratch` and `<name>.1.scratch`, empty, or with what an earlier run has left.
   *
   * @throws `LUTRA_E_RESUME_DAMAGED` where that is not what it has written; `LUTRA_E_DISK_FULL`, `LUTRA_E_IO`
   */
  static async open(
    directory: string,
    name: string,
    { shape, kept, signal }: { shape: Shape; kept: KeptActivations | null; signal: AbortSignal | undefined },
  ): Promise<ActivationGenerations> {
    const generation = kept?.blocks ?? -1;
    const bytes = (kept?.checksums.length ?? 0) * 4 * shape.sequenceLength * shape.hiddenSize;
    const opened: ActivationStore[] = [];
    const openAll = async () => {
      for (const file of [0, 1]) {
        const path = join(directory, `${name}.${file}.scratch`);
        const whole = kept !== null && file === (generation & 1);
        opened.push(
          whole ? await ActivationStore.open(path, bytes, signal) : await ActivationStore.create(path, signal),
        );
      }
      const files = opened as [ActivationStore, ActivationStore];
      const generations = new ActivationGenerations(files, generation, signal);
      if (kept) await generations.#require(kept.checksums, shape);
      return generations;
    };
    return await closingOnFailure(openAll, () => closeAll(...opened.map((file) => () => file.close())));
  }

  /** A window of what enters the block at hand. */
  async read(window: number, hidden: Tensor): Promise<void> {
    await this.files[this.#at(0)].read(window, hidden);
  }

  /** A window of what enters the next. */
  async write(window: number, hidden: Tensor): Promise<void> {
    const next = this.#at(1);
    await this.files[next].write(window, hidden);
    this.#checksums[next][window] = await crc32c(hidden, 0, { signal: this.signal });
  }

  /** From here on the next block is the one at hand. */
  advance(): void {
    this.generation += 1;
  }

  /** Brings what enters the block at hand to the disk. */
  async sync(): Promise<Checksums> {
    const now = this.#at(0);
    await this.files[now].sync();
    return this.#checksums[now];
  }

  async close(): Promise<void> {
    await closeAll(...this.files.map((file) => () => file.close()));
  }

  #at(later: 0 | 1): 0 | 1 {
    return ((this.generation + later) & 1) as 0 | 1;
  }

  async #require(checksums: Checksums, { sequenceLength, hiddenSize }: Shape): Promise<void> {
    using hidden = Tensor.zeros('f32', [sequenceLength, hiddenSize]);
    for (const [window, expected] of checksums.entries()) {
      await this.read(window, hidden);
      if ((await crc32c(hidden, 0, { signal: this.signal })) !== expected)
        throw damagedWork(this.files[this.#at(0)].path, 'the activations are not those that were written');
    }
  }
}
