import { createHash } from 'node:crypto';
import { join } from 'node:path';
import { LutraError } from '../errors.js';
import { defaultLimits, type ReadLimits } from './limits.js';
import { containedFile, readSmallFile } from './open-file.js';
import { decodeUtf8, type JsonObject, JsonReader } from './strict-json.js';

/** The JSON object that the bytes of a file spell. @throws `LUTRA_E_HEADER` for anything else, with the byte */
export function parseJsonObject(bytes: Uint8Array, path: string, limits: ReadLimits): JsonObject {
  const json = new JsonReader(decodeUtf8(bytes, path), path, limits);
  const value = json.value();
  json.end();
  if (typeof value === 'object' && value !== null && !Array.isArray(value)) return value;
  throw json.fail('the file is not an object');
}

/** Bytes of a file that lutra writes about a checkpoint or a job: some hundred for each layer and tensor. */
const largestOwn = 2 ** 28;

/**
 * The JSON object in a file of lutra's own, such as a manifest or a journal.
 *
 * @throws `LUTRA_E_HEADER` for anything else, `LUTRA_E_TRUNCATED` where it shrinks meanwhile, `LUTRA_E_NOT_FOUND`, `LUTRA_E_IO`
 */
export async function readOwnJson(path: string): Promise<JsonObject> {
  return parseJsonObject(await readSmallFile(path, largestOwn), path, defaultLimits);
}

/** A JSON file of a model. */
export interface ModelJson<Hash = string> {
  value: JsonObject;
  /** SHA-256 of the bytes that `value` was read from, in hexadecimal. */
  sha256: Hash;
}

/** The JSON object of a file of a model directory, named plainly. @throws as `readOwnJson`, `LUTRA_E_HEADER` also for a link out of the directory */
export async function readModelJson(
  directory: string,
  name: string,
  bytes: number,
  limits: ReadLimits = defaultLimits,
): Promise<ModelJson> {
  const path = await containedFile(directory, name, directory);
  const content = await readSmallFile(path, bytes);
  return { value: parseJsonObject(content, path, limits), sha256: createHash('sha256').update(content).digest('hex') };
}

/** As `readModelJson`; an empty object and no hash where there is no such file. */
export async function readOptionalModelJson(
  directory: string,
  name: string,
  bytes: number,
): Promise<ModelJson<string | null>> {
  try {
    return await readModelJson(directory, name, bytes);
  } catch (error) {
    if (error instanceof LutraError && error.code === 'LUTRA_E_NOT_FOUND' && error.where === join(directory, name))
      return { value: {}, sha256: null };
    throw error;
  }
}
