import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { lutraError } from '../errors.js';

/**
 * The ids that end a text according to a model's generation_config.json; none where there is no such file. Nothing else
 * of it is used: sampling is the caller's choice.
 *
 * @throws `LUTRA_E_HEADER` for a file that is not JSON, `LUTRA_E_SHAPE` for ids that are no ids.
 */
export async function generationEosIds(dir: string): Promise<number[]> {
  const path = join(dir, 'generation_config.json');
  const text = await readFile(path, 'utf8').catch((cause: NodeJS.ErrnoException) => {
    if (cause.code === 'ENOENT') return '{}';
    throw lutraError('LUTRA_E_IO', { message: 'the file cannot be read', where: path, cause });
  });
  const ids: unknown = parse(text, path)?.eos_token_id ?? [];
  const list: unknown[] = Array.isArray(ids) ? ids : [ids];
  const isId = (id: unknown): id is number => Number.isSafeInteger(id) && (id as number) >= 0;
  if (list.every(isId)) return list;
  throw lutraError('LUTRA_E_SHAPE', { message: 'cannot use eos_token_id', where: path, expected: 'token ids' });
}

function parse(text: string, path: string): { eos_token_id?: unknown } | null {
  try {
    return JSON.parse(text) as { eos_token_id?: unknown } | null;
  } catch (cause) {
    throw lutraError('LUTRA_E_HEADER', { message: 'the file is not JSON', where: path, cause });
  }
}
