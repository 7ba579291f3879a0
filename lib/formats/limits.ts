import { lutraError } from '../errors.js';

/** What a reader accepts from files that nobody vouches for. Every limit can be raised by the caller who trusts a file. */
export interface ReadLimits {
  /** Bytes of one safetensors header, and of an index file. */
  headerBytes: number;
  /** Tensors of a checkpoint, all shards together. */
  tensors: number;
  /** Dimensions of one tensor. */
  dimensions: number;
  /** UTF-16 units of one string: a name or a key. */
  stringLength: number;
  /** UTF-16 units of one file's `__metadata__`, keys and values together. */
  metadataLength: number;
  /** Objects and arrays inside each other. */
  nesting: number;
  /** Elements of one JSON array. */
  arrayLength: number;
  /** Files of one checkpoint. */
  shards: number;
  /** Bytes of config.json. */
  configBytes: number;
}

export const defaultLimits: Readonly<ReadLimits> = {
  headerBytes: 100_000_000,
  tensors: 2_000_000,
  dimensions: 8,
  stringLength: 2 ** 20,
  metadataLength: 2 ** 26,
  nesting: 64,
  arrayLength: 2 ** 24,
  shards: 10_000,
  configBytes: 16_000_000,
};

/** The defaults with the caller's own values over them. @throws `LUTRA_E_OPTION` for unknown names and unusable values. */
export function withDefaults(limits: Partial<ReadLimits> = {}): ReadLimits {
  for (const [name, value] of Object.entries(limits)) {
    if (Object.hasOwn(defaultLimits, name) && Number.isSafeInteger(value) && value >= 0) continue;
    throw lutraError('LUTRA_E_OPTION', {
      message: 'unusable reading limit',
      where: `limits.${name}`,
      found: String(value),
      expected: `a whole number for one of ${Object.keys(defaultLimits).join(', ')}`,
    });
  }
  return { ...defaultLimits, ...limits };
}
