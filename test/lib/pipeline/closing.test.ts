import { existsSync, writeFileSync } from 'node:fs';
import { type FileHandle, open } from 'node:fs/promises';
import { join } from 'node:path';
import { afterEach, expect, test, vi } from 'vitest';
import { parseConfig } from '../../../lib/models/index.js';
import { ActivationStore } from '../../../lib/pipeline/activation-store.js';
import { closeAll, closingOnFailure, withClosing } from '../../../lib/pipeline/closing.js';
import { FisherPass } from '../../../lib/pipeline/fisher.js';
import { HeldOutWindows } from '../../../lib/pipeline/held-out.js';
import { scratchDirectory, tinyConfig } from './random-model.js';

const scratch = scratchDirectory();
const config = parseConfig(tinyConfig, 'config.json');
const failing = (what: string) => async () => {
  throw what;
};

afterEach(() => vi.restoreAllMocks());

test('everything is closed, and the first error is thrown', async () => {
  const last = vi.fn();
  await expect(closeAll(failing('one'), failing('two'), last)).rejects.toBe('one');
  await expect(withClosing(failing('work'), failing('one'), last)).rejects.toBe('work');
  await expect(withClosing(async () => 7, failing('one'), last)).rejects.toBe('one');
  await expect(closingOnFailure(failing('work'), failing('one'), last)).rejects.toBe('work');
  expect(last).toHaveBeenCalledTimes(4);
  expect(await withClosing(async () => 7, last)).toBe(7);
  expect(await closingOnFailure(() => 8, last)).toBe(8);
  expect(last).toHaveBeenCalledTimes(5);
});

test('a scratch file that cannot be looked at is closed', async () => {
  const path = join(scratch, 'any');
  writeFileSync(path, '');
  const handle = await open(path);
  await handle.close();
  let opened: FileHandle | null = null;
  vi.spyOn(Object.getPrototypeOf(handle), 'stat').mockImplementationOnce(async function (this: unknown) {
    opened = this as FileHandle;
    throw new Error('no look');
  });
  await expect(ActivationStore.open(path, 0, undefined)).rejects.toThrow('no look');
  expect(opened!.fd).toBe(-1);
});

test('scratch files are closed where there is no memory for what goes through them', async () => {
  const close = vi.spyOn(ActivationStore.prototype, 'close');
  const context = { threads: 0, strict: false, signal: undefined } as never;
  const [sequenceLength, window] = [2 ** 45, new Int32Array(1)];
  const inputs = { windows: [window], heldOut: [window], sequenceLength } as never;
  const path = join(scratch, 'allocation.scratch');
  await expect(FisherPass.create({ graph: { config } } as never, inputs, path, context)).rejects.toThrow();
  expect(existsSync(path)).toBe(false);
  await expect(HeldOutWindows.create(config, inputs, { directory: scratch, kept: null }, context)).rejects.toThrow();
  expect(close).toHaveBeenCalledTimes(3);
});
