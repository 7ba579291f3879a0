import type { ReadLimits } from '../limits.js';
import { readSmallFile } from '../open-file.js';
import { decodeUtf8, JsonReader } from '../strict-json.js';

/** `model.safetensors.index.json`: the shard that holds each tensor. */
export interface ShardIndex {
  shardOf: Map<string, string>;
  shards: Set<string>;
}

/** Reads an index file. The names in it are not trusted yet. @throws `LUTRA_E_HEADER`, `LUTRA_E_NOT_FOUND` */
export async function readShardIndex(path: string, limits: ReadLimits): Promise<ShardIndex> {
  return parseShardIndex(await readSmallFile(path, limits.headerBytes), path, limits);
}

export function parseShardIndex(bytes: Uint8Array, path: string, limits: ReadLimits): ShardIndex {
  const json = new JsonReader(decodeUtf8(bytes, path), path, limits);
  let shardOf: Map<string, string> | undefined;
  const shards = new Set<string>();
  json.object((key) => {
    if (key === 'weight_map') shardOf = parseWeightMap(json, shards, limits);
    else json.value();
  });
  json.end();
  if (!shardOf) throw json.fail('the index has no weight_map');
  return { shardOf, shards };
}

function parseWeightMap(json: JsonReader, shards: Set<string>, limits: ReadLimits): Map<string, string> {
  const shardOf = new Map<string, string>();
  json.object((name) => {
    if (shardOf.size === limits.tensors)
      throw json.fail('the index names too many tensors', undefined, `at most ${limits.tensors}`);
    const shard = json.string();
    shardOf.set(name, shard);
    shards.add(shard);
    if (shards.size > limits.shards)
      throw json.fail('the index names too many files', undefined, `at most ${limits.shards}`);
  });
  return shardOf;
}
