import { readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { LutraError, lutraError } from '../errors.js';

/** A tokenizer of 256k entries with its merges is about 30 MB of JSON. */
const maxBytes = 256 * 2 ** 20;

export type JsonObject = Record<string, unknown>;

/**
 * Reads a JSON object of a model directory; null where the file is missing and not `required`.
 *
 * @throws `LUTRA_E_NOT_FOUND`, `LUTRA_E_HEADER` for text that is not a JSON object, `LUTRA_E_IO`
 */
export async function readJsonObject(dir: string, file: string, required: boolean): Promise<JsonObject | null> {
  const path = join(dir, file);
  const text = await readText(path, required);
  if (text === null) return null;
  const value = parse(text, path);
  if (isObject(value)) return value;
  throw lutraError('LUTRA_E_HEADER', { message: 'the file is not a JSON object', where: path });
}

export function isObject(value: unknown): value is JsonObject {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

async function readText(path: string, required: boolean): Promise<string | null> {
  try {
    const { size } = await stat(path);
    if (size <= maxBytes) return await readFile(path, 'utf8');
    throw lutraError('LUTRA_E_HEADER', {
      message: 'the file is too large',
      where: path,
      found: size,
      expected: `at most ${maxBytes} bytes`,
    });
  } catch (error) {
    if ((error as { code?: unknown }).code === 'ENOENT') {
      if (!required) return null;
      throw lutraError('LUTRA_E_NOT_FOUND', {
        message: 'the model has no tokenizer file that lutra reads',
        where: path,
        hint: 'Save the tokenizer as tokenizer.json (a "fast" tokenizer); tokenizer.model alone is not enough.',
        cause: error,
      });
    }
    if (error instanceof LutraError) throw error;
    throw lutraError('LUTRA_E_IO', { message: 'the file cannot be read', where: path, cause: error });
  }
}

function parse(text: string, path: string): unknown {
  try {
    return JSON.parse(text);
  } catch (cause) {
    throw lutraError('LUTRA_E_HEADER', {
      message: `the file is not JSON: ${cause instanceof Error ? cause.message : String(cause)}`,
      where: path,
      cause,
    });
  }
}
