import { join } from 'node:path';
import { z } from 'zod';
import { type LutraError, lutraError } from '../errors.js';
import { readOwnJson, requireDirectory } from '../formats/index.js';
import { type Manifest, manifestFile } from './manifest.js';

/** A file of the directory itself: what a manifest names is opened. */
const plainName = z.string().regex(/^(?!\.{1,2}$)[^/\\\0]+$/);
const sha256 = z.string().regex(/^[0-9a-f]{64}$/);
const count = z.int().min(0);

const number = z.number().nullable();

/** What is shown of a layer. */
const layer = z.looseObject({
  name: z.string(),
  bits: count,
  groupSize: z.int(),
  relativeError: number,
  rtnError: number,
  heldOutError: number,
  damping: number,
  deadColumns: count,
  tokens: count.nullable(),
  warnings: z.array(z.object({ kind: z.string(), message: z.string() })),
});

/** What is needed to verify a checkpoint or to repeat its job; the recipe is checked by whoever runs it. */
const schema = z.looseObject({
  lutra: z.object({ version: z.string(), formatVersion: count, isa: z.string() }),
  recipe: z.looseObject({}),
  calibration: z
    .looseObject({
      sha256,
      separator: z.string().nullable(),
      samples: count,
      heldOut: count,
      sequenceLength: count,
      seed: count,
      maxBadWindows: count,
    })
    .nullable(),
  shardBytes: z.int().min(1),
  inputs: z.record(plainName, sha256),
  outputs: z.object({
    tensors: z.record(z.string(), z.string().regex(/^[0-9a-f]{8}$/)),
    files: z.record(plainName, sha256),
  }),
  layers: z.array(layer),
  badWindows: z.array(z.object({ block: count, window: count })),
});

/**
 * The manifest of a checkpoint directory.
 *
 * @throws `LUTRA_E_OPTION` and `LUTRA_E_NOT_FOUND` for what is no directory, `LUTRA_E_MANIFEST` where there is none, or it lacks what this version of lutra records; `LUTRA_E_HEADER` where it is
 *   no JSON; `LUTRA_E_IO`
 */
export async function readManifest(directory: string): Promise<Manifest> {
  await requireDirectory(directory);
  const path = join(directory, manifestFile);
  const found = await readOwnJson(path).catch((error: unknown) => {
    throw (error as Partial<LutraError>).code === 'LUTRA_E_NOT_FOUND' ? noManifest(path, error) : error;
  });
  return checkManifest(found, path);
}

/** The content of a manifest as one. @throws `LUTRA_E_MANIFEST` */
export function checkManifest(found: unknown, path: string): Manifest {
  const parsed = schema.safeParse(found);
  if (parsed.success) return parsed.data as unknown as Manifest;
  const field = parsed.error.issues[0]?.path.join('.') ?? '';
  throw lutraError('LUTRA_E_MANIFEST', {
    message: 'the manifest does not hold what is needed to verify or to repeat its job',
    where: path,
    found: `no usable ${field.length > 200 ? `${field.slice(0, 200)}…` : field}`,
    hint: 'It was edited, or written by an older version of lutra. Quantize the model again.',
  });
}

const noManifest = (path: string, cause: unknown) =>
  lutraError('LUTRA_E_MANIFEST', {
    message: 'there is no manifest: nothing tells what this checkpoint should be',
    where: path,
    hint: 'Only directories that lutra quantize has written have one.',
    cause,
  });
