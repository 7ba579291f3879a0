import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { LutraError } from '../errors.js';
import { checksumText, crc32c, hashFile, onFile, openSafetensors } from '../formats/index.js';
import { manifestFile, runLogFile } from './manifest.js';
import { readManifest } from './read-manifest.js';

/** Something that is not what the manifest says. */
export interface Difference {
  /** A file or stored tensor of the checkpoint, or a file of the model that it was made from. */
  what: 'file' | 'tensor' | 'input';
  name: string;
  /** `unreadable`: there, but not to be read as what it is; `found` says why. A tensor of an unreadable file is missing. */
  state: 'changed' | 'missing' | 'extra' | 'unreadable';
  /** Hash that the manifest has; null where it does not name it. */
  expected: string | null;
  found: string | null;
}

export interface Verification {
  directory: string;
  /** Whether nothing differs. */
  intact: boolean;
  /** How many were compared. */
  files: number;
  tensors: number;
  inputs: number;
  /** Files first, then tensors, then inputs. */
  differences: Difference[];
}

export interface VerifyOptions {
  /** The model directory that the checkpoint was made from: its files are compared with the manifest's inputs. */
  model?: string | undefined;
  signal?: AbortSignal | undefined;
}

/**
 * Compares a checkpoint that `quantizeModel` wrote with its manifest: every file by SHA-256, every stored tensor by CRC-32C.
 * Reads all of it. Damage is what the result tells of, not an error.
 *
 * @throws `LUTRA_E_MANIFEST` where no manifest tells what should be there; `LUTRA_E_HEADER` where it is no JSON;
 *   `LUTRA_E_NOT_FOUND`, `LUTRA_E_IO`
 */
export async function verifyCheckpoint(directory: string, options: VerifyOptions = {}): Promise<Verification> {
  const { model, signal } = options;
  const { inputs, outputs } = await readManifest(directory);
  const present = await onFile(directory, () => readdir(directory));
  if (model !== undefined) await onFile(model, () => readdir(model));
  const files = present.filter((name) => name !== manifestFile && name !== runLogFile).sort();
  const differences = [
    ...(await compareFiles('file', directory, outputs.files, signal)),
    ...files.filter((name) => !Object.hasOwn(outputs.files, name)).map((name) => extra('file', name)),
    ...(await compareTensors(directory, files, outputs.tensors, signal)),
    ...(model === undefined ? [] : await compareFiles('input', model, inputs, signal)),
  ];
  return {
    directory,
    intact: differences.length === 0,
    files: Object.keys(outputs.files).length,
    tensors: Object.keys(outputs.tensors).length,
    inputs: model === undefined ? 0 : Object.keys(inputs).length,
    differences,
  };
}

async function compareFiles(
  what: 'file' | 'input',
  directory: string,
  hashes: Readonly<Record<string, string>>,
  signal: AbortSignal | undefined,
): Promise<Difference[]> {
  const differences: Difference[] = [];
  for (const [name, expected] of Object.entries(hashes)) {
    try {
      const found = await hashFile(join(directory, name), { signal });
      if (found !== expected) differences.push({ what, name, state: 'changed', expected, found });
    } catch (error) {
      const { code, message } = requireTyped(error);
      const state = code === 'LUTRA_E_NOT_FOUND' ? 'missing' : 'unreadable';
      differences.push({ what, name, state, expected, found: state === 'missing' ? null : message });
    }
  }
  return differences;
}

/** File by file, so that one with a damaged header hides no other. */
async function compareTensors(
  directory: string,
  files: readonly string[],
  checksums: Readonly<Record<string, string>>,
  signal: AbortSignal | undefined,
): Promise<Difference[]> {
  const differences: Difference[] = [];
  const seen = new Set<string>();
  for (const file of files.filter((name) => name.endsWith('.safetensors'))) {
    try {
      await using reader = await openSafetensors(join(directory, file));
      for (const name of reader.entries.keys()) {
        seen.add(name);
        const expected = Object.hasOwn(checksums, name) ? checksums[name]! : null;
        let sum = 0;
        for await (const piece of reader.bytes(name)) sum = await crc32c(piece, sum, { signal });
        const found = checksumText(sum);
        if (expected === null) differences.push({ ...extra('tensor', name), found });
        else if (found !== expected) differences.push({ what: 'tensor', name, state: 'changed', expected, found });
      }
    } catch (error) {
      const { message } = requireTyped(error);
      differences.push({ what: 'file', name: file, state: 'unreadable', expected: null, found: message });
    }
  }
  for (const [name, expected] of Object.entries(checksums))
    if (!seen.has(name)) differences.push({ what: 'tensor', name, state: 'missing', expected, found: null });
  return differences;
}

const extra = (what: 'file' | 'tensor', name: string): Difference => ({
  what,
  name,
  state: 'extra',
  expected: null,
  found: null,
});

/** Aborts and faults of lutra are no difference. */
function requireTyped(error: unknown): LutraError {
  if (error instanceof LutraError && error.code !== 'LUTRA_E_INTERNAL') return error;
  throw error;
}
