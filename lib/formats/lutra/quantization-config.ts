import { z } from 'zod';
import { lutraError } from '../../errors.js';
import { checkLayout, checkRank, type Dtype, type QuantizedLayout } from '../../tensor/index.js';
import type { SafetensorsDtype } from '../safetensors/index.js';
import { issueText } from '../schema-issue.js';
import { type JsonObject, type JsonValue, quoted } from '../strict-json.js';

/** The version of the checkpoint format that this lutra writes. It reads every version up to it. */
export const formatVersion = 1;

/** How one matrix is stored. */
export interface QuantizedEntry {
  readonly layout: Readonly<QuantizedLayout>;
  /** Element type of the scales or alphas. */
  readonly scaleDtype: Dtype;
  /** Element type of real offsets, else null. */
  readonly offsetDtype: Dtype | null;
  /** Rank and element type of a sub-branch; absent where there is none. */
  readonly subBranch?: { readonly rank: number; readonly dtype: Dtype } | undefined;
}

/** What `quantization_config` of a lutra checkpoint says. */
export interface QuantizationConfig {
  /** The version that the checkpoint was written in. */
  readonly formatVersion: number;
  /** Width, group size and symmetry of the recipe's grid; entries may differ where the recipe has overrides. */
  readonly bits: number;
  readonly groupSize: number;
  readonly symmetric: boolean;
  /** The normalised recipe, as the job was given it. */
  readonly recipe: JsonObject;
  readonly modulesToNotConvert: readonly string[];
  /** By the logical name, for example `model.layers.0.mlp.up_proj.weight`. */
  readonly tensors: ReadonlyMap<string, QuantizedEntry>;
}

/** Weight kinds that the format keeps names for and that no version stores yet. */
const reservedKinds = ['codebook', 'sparseOutliers', 'inputScale', 'groupWidths', 'permutedColumns'];
const storedReal = { F16: 'f16', BF16: 'bf16', F32: 'f32' } as const satisfies Partial<Record<SafetensorsDtype, Dtype>>;
const storedPair = { F16: 'f16', BF16: 'bf16', I8: 'i8' } as const satisfies Partial<Record<SafetensorsDtype, Dtype>>;
const pairNames: Partial<Record<Dtype, keyof typeof storedPair>> = { f16: 'F16', bf16: 'BF16', i8: 'I8' };
const realNames: Partial<Record<Dtype, keyof typeof storedReal>> = { f16: 'F16', bf16: 'BF16', f32: 'F32' };

const realDtype = z.enum(['F16', 'BF16', 'F32']);
const count = z.int().min(1);
const entrySchema = z.strictObject({
  kind: z.enum(['uniform', 'planes']),
  shape: z.tuple([count, count]),
  bits: count,
  group_size: z.int(),
  offsets: z.enum(['none', 'zeroCode', 'real']),
  scale_dtype: realDtype,
  offset_dtype: realDtype.optional(),
  sub_branch: z.strictObject({ rank: count, dtype: z.enum(['F16', 'BF16', 'I8']) }).optional(),
});
const schema = z.strictObject({
  quant_method: z.literal('lutra'),
  format_version: z.int().min(1).max(formatVersion),
  bits: count,
  group_size: z.int(),
  sym: z.boolean(),
  recipe: z.record(z.string(), z.json()),
  modules_to_not_convert: z.array(z.string()),
  tensors: z.record(z.string(), entrySchema),
});

/**
 * Reads `quantization_config` of a config.json; null where there is none.
 *
 * @throws `LUTRA_E_UNSUPPORTED_MODEL` for another method's checkpoints, `LUTRA_E_FORMAT_VERSION` for newer ones,
 *   `LUTRA_E_HEADER` with the field for everything that does not follow docs/format.md
 */
export function parseQuantizationConfig(value: JsonValue | undefined, where: string): QuantizationConfig | null {
  if (value === undefined || value === null) return null;
  requireOurs(value, where);
  const parsed = schema.safeParse(value);
  if (!parsed.success) throw schemaFailure(parsed.error.issues[0], where);
  const { format_version, bits, group_size, sym, recipe, modules_to_not_convert, tensors } = parsed.data;
  return {
    formatVersion: format_version,
    bits,
    groupSize: group_size,
    symmetric: sym,
    recipe: recipe as JsonObject,
    modulesToNotConvert: modules_to_not_convert,
    tensors: new Map(Object.entries(tensors).map(([name, entry]) => [name, parseEntry(entry, name, where)])),
  };
}

/** The inverse of `parseQuantizationConfig`. */
export function quantizationConfigJson(config: QuantizationConfig): JsonObject {
  return {
    quant_method: 'lutra',
    format_version: config.formatVersion,
    bits: config.bits,
    group_size: config.groupSize,
    sym: config.symmetric,
    recipe: config.recipe,
    modules_to_not_convert: [...config.modulesToNotConvert],
    tensors: Object.fromEntries([...config.tensors].map(([name, entry]) => [name, entryJson(entry)])),
  };
}

function entryJson({ layout, scaleDtype, offsetDtype, subBranch }: QuantizedEntry): JsonObject {
  const { kind, rows, cols, bits, groupSize, offsets } = layout;
  const json: JsonObject = { kind, shape: [rows, cols], bits, group_size: groupSize, offsets };
  json.scale_dtype = realNames[scaleDtype]!;
  if (offsetDtype) json.offset_dtype = realNames[offsetDtype]!;
  if (subBranch) json.sub_branch = { rank: subBranch.rank, dtype: pairNames[subBranch.dtype]! };
  return json;
}

function parseEntry(entry: z.infer<typeof entrySchema>, name: string, where: string): QuantizedEntry {
  const { kind, shape, bits, group_size, offsets, scale_dtype, offset_dtype, sub_branch } = entry;
  const place = `${where}: quantization_config.tensors[${quoted(name)}]`;
  if (!name.endsWith('.weight'))
    throw lutraError('LUTRA_E_HEADER', { message: 'a quantized tensor is named ….weight', where: place });
  if ((offset_dtype !== undefined) !== (offsets === 'real'))
    throw lutraError('LUTRA_E_HEADER', {
      message: "offset_dtype belongs to offsets 'real', and only to them",
      where: place,
    });
  const layout: QuantizedLayout = { rows: shape[0], cols: shape[1], bits, groupSize: group_size, kind, offsets };
  checkLayout(layout, place);
  const stored = { scaleDtype: storedReal[scale_dtype], offsetDtype: offset_dtype ? storedReal[offset_dtype] : null };
  if (!sub_branch) return { layout, ...stored };
  checkRank(sub_branch.rank, layout.rows, layout.cols, `${place}.sub_branch.rank`);
  return { layout, ...stored, subBranch: { rank: sub_branch.rank, dtype: storedPair[sub_branch.dtype] } };
}

/** Another method and a newer version are told apart from a broken file before the fields are looked at. */
function requireOurs(value: JsonValue, where: string): void {
  const config = typeof value === 'object' && !Array.isArray(value) ? value : {};
  const { quant_method: method, format_version: version } = config ?? {};
  if (method !== 'lutra')
    throw lutraError('LUTRA_E_UNSUPPORTED_MODEL', {
      message: 'the checkpoint is quantized in a format that lutra does not read',
      where: `${where}: quantization_config.quant_method`,
      found: method === undefined ? 'none' : quoted(typeof method === 'string' ? method : JSON.stringify(method)),
      expected: '"lutra", or a checkpoint that is not quantized',
    });
  if (typeof version === 'number' && version > formatVersion)
    throw lutraError('LUTRA_E_FORMAT_VERSION', {
      message: 'the checkpoint was written by a newer lutra',
      where: `${where}: quantization_config.format_version`,
      found: version,
      expected: `at most ${formatVersion}`,
      hint: 'Install a newer version of lutra.',
    });
  for (const [name, entry] of Object.entries((config as JsonObject).tensors ?? {})) {
    const kind = (entry as JsonObject | null)?.kind;
    if (typeof kind === 'string' && reservedKinds.includes(kind))
      throw lutraError('LUTRA_E_UNSUPPORTED_MODEL', {
        message: 'this version of lutra does not read this kind of weights',
        where: `${where}: quantization_config.tensors[${quoted(name)}].kind`,
        found: kind,
        expected: 'uniform or planes',
      });
  }
}

function schemaFailure(issue: z.core.$ZodIssue | undefined, where: string) {
  const field = ['quantization_config', ...(issue?.path ?? [])].map(String).join('.');
  return lutraError('LUTRA_E_HEADER', {
    ...(issue ? issueText(issue) : { message: 'malformed quantization_config' }),
    where: `${where}: ${field.slice(0, 200)}`,
    hint: 'docs/format.md describes every field.',
  });
}
