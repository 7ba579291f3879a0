import { join } from 'node:path';
import { LutraError, lutraError } from '../errors.js';
import { type ReadTokenizer, readTokenizer } from '../inference/index.js';
import type { LlamaConfig } from '../models/index.js';

/**
 * The tokenizer of a model whose embedding has a row for every id of it.
 *
 * @throws `LUTRA_E_SHAPE` for ids beyond the embedding, and what `readTokenizer` throws
 */
export async function fittingTokenizer(directory: string, { vocabularySize }: LlamaConfig): Promise<ReadTokenizer> {
  const read = await readTokenizer(directory);
  const { tokenizer } = read;
  if (tokenizer.vocabularySize <= vocabularySize) return read;
  throw lutraError('LUTRA_E_SHAPE', {
    message: 'the tokenizer has ids beyond the embedding',
    where: join(directory, 'tokenizer.json'),
    found: `ids up to ${tokenizer.vocabularySize - 1}`,
    expected: `at most ${vocabularySize - 1}`,
    hint: 'Tokenizer and weights do not belong together.',
  });
}

/** What is wrong with the tokenizer, in sentences: where no text is read, it is no reason to refuse the job. */
export async function tokenizerNotes(directory: string, config: LlamaConfig): Promise<string[]> {
  try {
    await fittingTokenizer(directory, config);
    return [];
  } catch (error) {
    if (error instanceof LutraError) return [error.message];
    throw error;
  }
}
