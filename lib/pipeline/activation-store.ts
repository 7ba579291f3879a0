import { type FileHandle, open, rm } from 'node:fs/promises';
import { closeFile, onFile, syncing } from '../formats/index.js';
import { addon, cancellable, taskIds } from '../native/index.js';
import type { Tensor } from '../tensor/index.js';
import { closeAll, closingOnFailure } from './closing.js';
import { damagedWork, onWork } from './damaged-work.js';

/** Activations by window, f32 [sequenceLength, hiddenSize] each. */
export interface Activations {
  /** Fills `hidden` with the window's. */
  read(window: number, hidden: Tensor): Promise<void>;
  write(window: number, hidden: Tensor): Promise<void>;
}

/**
 * The activations between two blocks, f32 [sequenceLength, hiddenSize] a window, in a scratch file: 128 windows of 2,048
 * tokens of a 2,048-wide model are 2.1 GB that need not be memory.
 */
export class ActivationStore implements Activations {
  private constructor(
    private readonly file: FileHandle,
    readonly path: string,
    private readonly signal: AbortSignal | undefined,
  ) {}

  /** An empty file. @throws `LUTRA_E_DISK_FULL`, `LUTRA_E_IO` */
  static async create(path: string, signal: AbortSignal | undefined): Promise<ActivationStore> {
    return new ActivationStore(await onFile(path, () => open(path, 'w+')), path, signal);
  }

  /** The file of an earlier run. @throws `LUTRA_E_RESUME_DAMAGED` where it is not of `bytes`, `LUTRA_E_IO` */
  static async open(path: string, bytes: number, signal: AbortSignal | undefined): Promise<ActivationStore> {
    const file = await onWork(path, 'the activations of the unfinished job are missing', () => open(path, 'r+'));
    const check = async () => {
      const { size } = await onFile(path, () => file.stat());
      if (size !== bytes) throw damagedWork(path, 'the activations have another size');
      return new ActivationStore(file, path, signal);
    };
    return await closingOnFailure(check, () => closeFile(file));
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

  /** Brings everything to the disk. @throws `LUTRA_E_DISK_FULL`, `LUTRA_E_IO` */
  async sync(): Promise<void> {
    await onFile(this.path, () => syncing(this.signal, () => this.file.sync()));
  }

  async close(): Promise<void> {
    await closeFile(this.file);
  }

  /** Closes and removes the file. */
  async dispose(): Promise<void> {
    await closeAll(
      () => this.close(),
      () => onFile(this.path, () => rm(this.path, { force: true })),
    );
  }
}
