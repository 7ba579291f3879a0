import { join } from 'node:path';
import { lutraError } from '../errors.js';
import { readOptionalModelJson } from '../formats/index.js';

const file = 'generation_config.json';
const maxBytes = 2 ** 20;
/** Ids that may end a text: no model has a tenth of them. */
const maxIds = 1024;

/**
 * The ids that end a text according to a model's generation_config.json; none where there is no such file. Nothing else
 * of it is used: sampling is the caller's choice.
 *
 * @throws `LUTRA_E_HEADER` for a file that is not a JSON object, `LUTRA_E_SHAPE` for ids that are no ids, `LUTRA_E_IO`
 */
export async function generationEosIds(dir: string): Promise<number[]> {
  const { value } = await readOptionalModelJson(dir, file, maxBytes);
  return eosIdsOf(value, join(dir, file));
}

/** The ids of a generation_config.json's content. */
export function eosIdsOf(config: Readonly<Record<string, unknown>>, where: string): number[] {
  const ids: unknown = config.eos_token_id ?? [];
  const list: unknown[] = Array.isArray(ids) ? ids : [ids];
  const isId = (id: unknown): id is number => Number.isSafeInteger(id) && (id as number) >= 0;
  if (list.length <= maxIds && list.every(isId)) return list;
  throw lutraError('LUTRA_E_SHAPE', {
    message: 'cannot use eos_token_id',
    where,
    expected: `at most ${maxIds} token ids`,
  });
}
