import { stat } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { lutraError } from '../errors.js';
import { type Checkpoint, type CheckpointPlan, containedFile, hashFile, onFile } from '../formats/index.js';
import type { Progress } from './progress.js';

/** A file of the model that the checkpoint is made from. */
export interface InputFile {
  name: string;
  path: string;
  bytes: number;
}

/** SHA-256 by name of files whose content a job has read already; null of a file that there was not. */
export type ReadFiles = Readonly<Record<string, string | null>>;

/** Every file of the model that the checkpoint is made from. @throws `LUTRA_E_HEADER` where one lies elsewhere, `LUTRA_E_IO` */
export async function inputFiles(source: Checkpoint, plan: CheckpointPlan): Promise<InputFile[]> {
  const weights = new Set([...source.reader.entries.values()].map(({ file }) => basename(file)));
  const files: InputFile[] = [];
  for (const name of ['config.json', ...plan.files, ...[...weights].sort()]) {
    const path = await containedFile(source.directory, name, source.directory);
    const found = await onFile(path, () => stat(path));
    if (!found.isFile()) throw lutraError('LUTRA_E_IO', { message: 'not a regular file', where: path });
    files.push({ name, path, bytes: found.size });
  }
  return files;
}

/**
 * SHA-256 by file name, of the bytes that the job works with, whatever lies at the paths by now: of files that were read those of
 * then, of files of weights through the handles that they are read by.
 *
 * @throws `LUTRA_E_INPUT_CHANGED` where a file came or went while the job read it; `LUTRA_E_NOT_FOUND`, `LUTRA_E_TRUNCATED`, `LUTRA_E_IO`
 */
export async function hashInputs(
  { directory, reader }: Checkpoint,
  { inputs, read }: { inputs: readonly InputFile[]; read: ReadFiles },
  signal: AbortSignal | undefined,
  report: (event: Progress) => void,
): Promise<Record<string, string>> {
  const listed = new Set(inputs.map(({ name }) => name));
  for (const [name, sha256] of Object.entries(read))
    if (listed.has(name) !== (sha256 !== null)) throw changed(join(directory, name));
  const totalBytes = inputs.reduce((sum, { bytes }) => sum + bytes, 0);
  const hashes: Record<string, string> = {};
  const opened = reader.files;
  let before = 0;
  for (const { name: file, path, bytes: size } of inputs) {
    const onBytes = (bytes: number) => report({ phase: 'hash', file, bytes: before + bytes, totalBytes });
    const known = read[file];
    if (known) onBytes(size);
    const options = { signal, onBytes };
    hashes[file] = known ?? (await (opened.has(path) ? reader.hash(path, options) : hashFile(path, options)));
    before += size;
  }
  return hashes;
}

const changed = (where: string) =>
  lutraError('LUTRA_E_INPUT_CHANGED', {
    message: 'the file came or went while the job read the model',
    where,
    hint: 'Start again when nobody changes the model.',
  });
