import type { ReadLimits } from './limits.js';
import { readSmallFile } from './open-file.js';
import { decodeUtf8, type JsonObject, JsonReader } from './strict-json.js';

/** The JSON object that a file of at most `bytes` bytes holds. @throws `LUTRA_E_HEADER` for anything else, `LUTRA_E_NOT_FOUND`, `LUTRA_E_IO` */
export async function readJsonObject(path: string, bytes: number, limits: ReadLimits): Promise<JsonObject> {
  const json = new JsonReader(decodeUtf8(await readSmallFile(path, bytes), path), path, limits);
  const value = json.value();
  json.end();
  if (typeof value === 'object' && value !== null && !Array.isArray(value)) return value;
  throw json.fail('the file is not an object');
}
