import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll } from 'vitest';
import { LutraError, type LutraErrorCode } from '../../../lib/errors.js';

/** A safetensors file as bytes: any header, whole or broken, and data behind it. */
export function fileBytes(header: unknown, data: Uint8Array | number = 0): Buffer {
  const text = typeof header === 'string' ? Buffer.from(header) : Buffer.from(JSON.stringify(header));
  return framed(text, data);
}

export function framed(header: Uint8Array, data: Uint8Array | number = 0, length = BigInt(header.length)): Buffer {
  const prefix = Buffer.alloc(8);
  prefix.writeBigUInt64LE(length);
  return Buffer.concat([prefix, header, typeof data === 'number' ? Buffer.alloc(data) : data]);
}

/** The error that `work` ends with; fails where it ends well or with anything but a LutraError. */
export async function failureOf(work: () => unknown): Promise<LutraError> {
  try {
    await work();
  } catch (error) {
    if (error instanceof LutraError) return error;
    throw error;
  }
  throw new Error('nothing was thrown');
}

export async function codeOf(work: () => unknown): Promise<LutraErrorCode> {
  return (await failureOf(work)).code;
}

/** A directory that goes with the test file. */
export function scratchDirectory(): string {
  const directory = mkdtempSync(join(tmpdir(), 'lutra-formats-'));
  afterAll(() => rmSync(directory, { recursive: true, force: true }));
  return directory;
}

/** Uniform numbers in [0, 1) from a seed (mulberry32). */
export function seeded(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}
