import { type FileHandle, open, rm } from 'node:fs/promises';
import { lutraError } from '../errors.js';
import { addon, cancellable, taskIds } from '../native/index.js';
import type { Tensor } from '../tensor/index.js';

/**
 * The activations between two blocks, f32 [sequenceLength, hiddenSize] a window, in a scratch file: 128 windows of 2,048
 * tokens of a 2,048-wide model are 2.1 GB that need not be memory.
 */
export class ActivationStore {
  private constructor(
    private readonly file: FileHandle,
    private readonly path: string,
    private readonly signal: AbortSignal | undefined,
  ) {}

  static async create(path: string, signal: AbortSignal | undefined): Promise<ActivationStore> {
    try {
      return new ActivationStore(await open(path, 'wx+'), path, signal);
    } catch (cause) {
      const { code, message } = cause as NodeJS.ErrnoException;
      const full = code === 'ENOSPC' || code === 'EDQUOT';
      throw lutraError(full ? 'LUTRA_E_DISK_FULL' : 'LUTRA_E_IO', {
        message: `the scratch file cannot be made: ${message}`,
        where: path,
        cause,
      });
    }
  }

  /** Fills `hidden` with what `write` put at this window. */
  async read(window: number, hidden: Tensor): Promise<void> {
    await this.#move('readFile', window, hidden);
  }

  /** @throws `LUTRA_E_DISK_FULL`, `LUTRA_E_IO` */
  async write(window: number, hidden: Tensor): Promise<void> {
    await this.#move('writeFile', window, hidden);
  }

  async #move(task: 'readFile' | 'writeFile', window: number, hidden: Tensor): Promise<void> {
    const numbers = [this.file.fd, window * hidden.byteLength, 0, hidden.byteLength];
    await cancellable(
      this.signal,
      (cancel) => addon().task(taskIds[task], [hidden.native], numbers, 0, cancel),
      this.path,
    );
  }

  /** Closes and removes the file. */
  async dispose(): Promise<void> {
    await this.file.close();
    await rm(this.path, { force: true });
  }
}
