import { mkdir, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import type { Comparison } from '../comparison/index.js';
import { lutraError } from '../errors.js';
import { onFile, replaceFile, requireRegularFile } from '../formats/index.js';
import { comparisonPage } from './comparison-page.js';

const data = 'compare.json';
const page = 'compare.html';

/**
 * Makes the directory that `writeComparison` fills. What else lies there is left alone.
 *
 * @throws `LUTRA_E_EXISTS` where a comparison lies there, unless it may be overwritten; `LUTRA_E_IO`
 */
export async function createComparison(
  directory: string,
  { overwrite = false }: { overwrite?: boolean | undefined },
): Promise<void> {
  await onFile(directory, () => mkdir(directory, { recursive: true }));
  for (const path of [data, page].map((name) => join(directory, name))) {
    await requireRegularFile(path);
    if (overwrite) await onFile(path, () => rm(path, { force: true }));
    else if (await stat(path).catch(() => null))
      throw lutraError('LUTRA_E_EXISTS', {
        message: 'a comparison lies there already',
        where: path,
        hint: 'Choose another directory, or allow to overwrite it: --overwrite on the command line.',
      });
  }
}

/** Writes compare.json and compare.html; each is whole at every moment. @throws `LUTRA_E_EXISTS`, `LUTRA_E_DISK_FULL`, `LUTRA_E_IO` */
export async function writeComparison(directory: string, comparison: Comparison): Promise<void> {
  const files = { [data]: `${JSON.stringify(comparison)}\n`, [page]: comparisonPage(comparison) };
  for (const [name, text] of Object.entries(files)) await replaceFile(join(directory, name), text);
}
