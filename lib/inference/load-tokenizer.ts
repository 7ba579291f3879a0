import { join } from 'node:path';
import { LutraError, lutraError } from '../errors.js';
import { readModelJson, readOptionalModelJson } from '../formats/index.js';
import { Tokenizer } from '../tokenizer/index.js';

const tokenizerFile = 'tokenizer.json';
/** A tokenizer of 256k entries with its merges is about 30 MB of JSON. */
const tokenizerBytes = 2 ** 28;
/** Chat templates make up most of it. */
const configBytes = 2 ** 24;

/**
 * Loads the tokenizer of a model directory: tokenizer.json, and tokenizer_config.json where there is one.
 *
 * @throws `LUTRA_E_NOT_FOUND`, `LUTRA_E_HEADER`, `LUTRA_E_TRUNCATED`, `LUTRA_E_UNSUPPORTED_MODEL`, `LUTRA_E_IO`
 */
export async function loadTokenizer(dir: string): Promise<Tokenizer> {
  const where = join(dir, tokenizerFile);
  const tokenizerJson = await readModelJson(dir, tokenizerFile, tokenizerBytes).catch((cause: unknown) => {
    if (!(cause instanceof LutraError) || cause.code !== 'LUTRA_E_NOT_FOUND') throw cause;
    throw lutraError('LUTRA_E_NOT_FOUND', {
      message: 'the model has no tokenizer file that lutra reads',
      where,
      hint: 'Save the tokenizer as tokenizer.json (a "fast" tokenizer); tokenizer.model alone is not enough.',
      cause,
    });
  });
  return new Tokenizer(tokenizerJson, await readOptionalModelJson(dir, 'tokenizer_config.json', configBytes), where);
}
