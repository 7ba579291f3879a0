import { lutraError } from '../errors.js';
import type { LlamaConfig } from '../models/index.js';

/** @throws `LUTRA_E_OPTION` for no ids, more than the context, or ids outside the vocabulary. */
export function checkIds(config: LlamaConfig, ids: ArrayLike<number>, where: string): void {
  if (ids.length < 1 || ids.length > config.context)
    throw lutraError('LUTRA_E_OPTION', {
      message: 'the sequence does not fit the model',
      where,
      found: `${ids.length} tokens`,
      expected: `1 to ${config.context}`,
    });
  for (let i = 0; i < ids.length; i++) {
    const id = ids[i]!;
    if (!(Number.isInteger(id) && id >= 0 && id < config.vocabularySize))
      throw lutraError('LUTRA_E_OPTION', {
        message: `no such token at index ${i}`,
        where,
        found: String(id),
        expected: `0 to ${config.vocabularySize - 1}`,
      });
  }
}
