import { closeSync, openSync, readSync, writeSync } from 'node:fs';

/** What test/faults/interposer.cc lets fail; the same numbers are there. */
export const kinds = {
  open: 1,
  read: 2,
  write: 4,
  sync: 8,
  rename: 16,
  /** mkdir, rmdir, unlink, ftruncate */
  change: 32,
  /** stat, readdir, realpath */
  look: 64,
  close: 128,
  /** Blocks of numbers of the addon. */
  memory: 256,
  /** Its other objects. */
  objects: 512,
} as const;
export type Kind = keyof typeof kinds;

/** Errors by their numbers on Linux; `short` moves half of the bytes and is none. */
export const errors = { short: 0, EINTR: 4, EIO: 5, ENOMEM: 12, EMFILE: 24, ENOSPC: 28 } as const;
export type ErrorName = keyof typeof errors;

const bytes = 32;

/** The mapped file by which a process tells its own interposer what to do. */
export class Control {
  readonly #file: number;

  constructor(path: string) {
    this.#file = openSync(path, 'r+');
  }

  /** Makes the `call`th call of a kind fail, and all behind it where `lasting`; none with 0, which counts. */
  arm(kind: Kind, error: ErrorName, call: number, lasting: boolean): void {
    const block = Buffer.alloc(bytes);
    block.writeUInt32LE(errors[error], 4);
    block.writeBigUInt64LE(BigInt(call), 8);
    block.writeUInt32LE(lasting ? 1 : 0, 28);
    writeSync(this.#file, block, 0, bytes, 0);
    block.writeUInt32LE(kinds[kind], 0);
    writeSync(this.#file, block, 0, 4, 0);
  }

  /** Ends it. @returns the calls that were counted, and whether one failed */
  disarm(): { counted: number; fired: boolean } {
    const block = Buffer.alloc(bytes);
    writeSync(this.#file, block, 0, 4, 0);
    readSync(this.#file, block, 0, bytes, 0);
    return { counted: Number(block.readBigUInt64LE(16)), fired: block.readUInt32LE(24) !== 0 };
  }

  close(): void {
    closeSync(this.#file);
  }
}

export const controlBytes = bytes;
