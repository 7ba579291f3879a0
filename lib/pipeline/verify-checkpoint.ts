import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { LutraError } from '../errors.js';
import { checksumText, crc32c, hashFile, onFile, openSafetensors, requireDirectory } from '../formats/index.js';
import { checkOptions } from '../ops/index.js';
import { manifestFile, runLogFile } from './manifest.js';
import { readManifest } from './read-manifest.js';

/** Something that is not what the manifest says. */
export interface Difference {
  /** A file or stored tensor of the checkpoint, or a file of the model that it was made from. */
  what: 'file' | 'tensor' | 'input';
  name: string;
  /** `unreadable`: there, but not to be read as what it is; `found` says why, and how many tensors are lost with it. */
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
 * @throws `LUTRA_E_OPTION`; `LUTRA_E_MANIFEST` where no manifest tells what should be there; `LUTRA_E_HEADER` where it is no JSON;
 *   `LUTRA_E_NOT_FOUND`, `LUTRA_E_IO`
 */
export async function verifyCheckpoint(directory: string, options: VerifyOptions = {}): Promise<Verification> {
  checkOptions(options, { model: true, signal: true }, 'verifyCheckpoint');
  const { model, signal } = options;
  const { inputs, outputs } = await readManifest(directory);
  const present = await onFile(directory, () => readdir(directory));
  if (model !== undefined) await requireDirectory(model, 'verifyCheckpoint.model');
  const files = present.filter((name) => name !== manifestFile && name !== runLogFile).sort();
  const inFiles = await compareFiles('file', directory, outputs.files, signal);
  const inTensors = await compareTensors(directory, files, outputs.tensors, signal);
  const { unreadable } = inTensors;
  const lost = unreadable.length > 0 || inFiles.some(({ name, state }) => state === 'missing' && isWeights(name));
  const differences = [
    ...inFiles.filter(({ name }) => !unreadable.some((file) => file.name === name)),
    ...files.filter((name) => !Object.hasOwn(outputs.files, name)).map((name) => extra('file', name)),
    ...unreadable,
    ...inTensors.differences,
    // Those of a file that cannot be read, or is missing, are told with it.
    ...(lost ? [] : inTensors.missing),
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
      const typed = requireTyped(error);
      const { code } = typed;
      const state = code === 'LUTRA_E_NOT_FOUND' ? 'missing' : 'unreadable';
      differences.push({ what, name, state, expected, found: state === 'missing' ? null : finding(typed) });
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
): Promise<{ differences: Difference[]; unreadable: Difference[]; missing: Difference[] }> {
  const differences: Difference[] = [];
  const unreadable: Difference[] = [];
  const seen = new Set<string>();
  for (const file of files.filter(isWeights)) {
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
      const found = finding(requireTyped(error));
      unreadable.push({ what: 'file', name: file, state: 'unreadable', expected: null, found });
    }
  }
  const missing = Object.entries(checksums)
    .filter(([name]) => !seen.has(name))
    .map(([name, expected]): Difference => ({ what: 'tensor', name, state: 'missing', expected, found: null }));
  const last = unreadable.at(-1);
  if (last)
    last.found +=
      `. ${missing.length} of ${Object.keys(checksums).length} tensors are in no file that can be read. ` +
      'Copy the file again from where it is whole, or quantize the model again';
  return { differences, unreadable, missing };
}

const isWeights = (name: string): boolean => name.endsWith('.safetensors');

const extra = (what: 'file' | 'tensor', name: string): Difference => ({
  what,
  name,
  state: 'extra',
  expected: null,
  found: null,
});

/** What an error says is wrong; what to do is said once, for the whole checkpoint. */
const finding = ({ message, hint }: LutraError): string =>
  hint && message.endsWith(`. ${hint}`) ? message.slice(0, -hint.length - 2) : message;

/** Aborts and faults of lutra are no difference. */
function requireTyped(error: unknown): LutraError {
  if (error instanceof LutraError && error.code !== 'LUTRA_E_INTERNAL') return error;
  throw error;
}
