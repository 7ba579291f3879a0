import { join } from 'node:path';
import { LutraError, lutraError } from '../errors.js';
import { readModelJson, readOptionalModelJson } from '../formats/index.js';
import { Tokenizer } from '../tokenizer/index.js';

const tokenizerFile = 'tokenizer.json';
const configFile = 'tokenizer_config.json';
/** A tokenizer of 256k entries with its merges is about 30 MB of JSON. */
const tokenizerBytes = 2 ** 28;
/** Chat templates make up most of it. */
const configBytes = 2 ** 24;

/** A tokenizer, and the files that it was made from. */
export interface ReadTokenizer {
  tokenizer: Tokenizer;
  /** SHA-256 by name of what was read; null of a file that there was not. */
  files: Record<string, string | null>;
}

/** The tokenizer of a model directory, as `readTokenizer` reads it. @throws as that */
export async function loadTokenizer(dir: string): Promise<Tokenizer> {
  return (await readTokenizer(dir)).tokenizer;
}

/**
 * Reads the tokenizer of a model directory: tokenizer.json, and tokenizer_config.json where there is one.
 *
 * @throws `LUTRA_E_NOT_FOUND`, `LUTRA_E_HEADER`, `LUTRA_E_TRUNCATED`, `LUTRA_E_UNSUPPORTED_MODEL`, `LUTRA_E_IO`
 */
export async function readTokenizer(dir: string): Promise<ReadTokenizer> {
  const where = join(dir, tokenizerFile);
  const json = await readModelJson(dir, tokenizerFile, tokenizerBytes).catch((cause: unknown) => {
    if (!(cause instanceof LutraError) || cause.code !== 'LUTRA_E_NOT_FOUND') throw cause;
    throw lutraError('LUTRA_E_NOT_FOUND', {
      message: 'the model has no tokenizer file that lutra reads',
      where,
      hint: 'Save the tokenizer as tokenizer.json (a "fast" tokenizer); tokenizer.model alone is not enough.',
      cause,
    });
  });
  const config = await readOptionalModelJson(dir, configFile, configBytes);
  return {
    tokenizer: new Tokenizer(json.value, config.value, where),
    files: { [tokenizerFile]: json.sha256, [configFile]: config.sha256 },
  };
}
