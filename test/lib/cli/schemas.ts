import { z } from 'zod';

/** What docs/cli.md says that `--json` prints, field by field; an unknown field fails. */

const number = z.number();
const nullable = number.nullable();
const modes = z.enum(['exact', 'accurate', 'fast']);

const layer = z.strictObject({
  name: z.string(),
  bits: number,
  groupSize: number,
  symmetric: z.boolean(),
  scaleDtype: z.enum(['f16', 'bf16', 'f32']),
  relativeError: number,
  rtnError: number,
  calibrationError: nullable,
  heldOutError: nullable,
  damping: nullable,
  deadColumns: number,
  tokens: nullable,
  lowRank: z
    .strictObject({ rank: number, dtype: z.string(), errorWithout: number, steps: number, best: number })
    .nullable(),
  warnings: z.array(z.strictObject({ kind: z.string(), message: z.string() })),
});

const kl = z.strictObject({ mean: number, standardError: nullable, p99: number, p999: number, max: number });

const evaluation = z.strictObject({
  perplexity: number,
  perplexityStandardError: nullable,
  tokens: number,
  documents: number,
  convention: z.enum(['documents', 'windows']),
  context: number,
  mode: modes,
  textSha256: z.string().regex(/^[0-9a-f]{64}$/),
  kl: kl.nullable(),
  top1Agreement: nullable,
  bitsPerWeight: nullable,
  bitsPerParameter: number,
});

const histogram = z.strictObject({ limit: number, counts: z.array(z.int().min(0)) });
const measured = z.strictObject({
  bitsPerWeight: number,
  seconds: number,
  texts: z.array(evaluation),
  layers: z.array(layer),
  weights: z.strictObject({ before: histogram, after: histogram, error: histogram, relativeError: number }),
});
/** What `compare` prints, and compare.json holds. */
export const comparison = z.strictObject({
  version: z.literal(1),
  lutra: z.strictObject({ version: z.string(), formatVersion: number, isa: z.string() }),
  model: z.string(),
  bitsPerParameter: number,
  calibration: z.strictObject({ samples: nullable, sequenceLength: nullable, heldOut: number }).nullable(),
  texts: z.array(z.strictObject({ name: z.string(), original: evaluation })),
  planned: number,
  runs: z.array(
    z.strictObject({
      name: z.string(),
      label: z.string(),
      seed: nullable,
      recipe: z.record(z.string(), z.unknown()).nullable(),
      error: z.strictObject({ code: z.string(), message: z.string() }).nullable(),
      measured: measured.nullable(),
    }),
  ),
});

const plannedLayer = z.strictObject({
  name: z.string(),
  bits: number,
  groupSize: number,
  tail: nullable,
  bytes: number,
});
const part = number.int().min(0);
/** What `quantize --dry-run` prints. */
export const quantizationPlan = z.strictObject({
  model: z.string(),
  out: z.string(),
  recipe: z.record(z.string(), z.unknown()),
  blocks: z.array(
    z.strictObject({ block: number, layers: z.array(plannedLayer), readBytes: number, writtenBytes: number }),
  ),
  output: z.strictObject({
    bytes: number,
    files: z.array(z.strictObject({ name: z.string(), bytes: number })),
    bitsPerWeight: number,
    bitsPerParameter: number,
  }),
  calibration: z.strictObject({ windows: number, heldOut: number, sequenceLength: number, tokens: number }).nullable(),
  disk: z.strictObject({ directory: z.string(), neededBytes: number, scratchBytes: number, freeBytes: nullable }),
  memory: z.strictObject({
    peakBytes: number,
    at: z.string(),
    parts: z.strictObject({ process: part, text: part, weights: part, hessians: part, window: part, solver: part }),
    limitBytes: nullable,
  }),
  unfinished: z
    .strictObject({
      directory: z.string(),
      blocks: nullable,
      published: z.boolean(),
      takenOver: z.boolean(),
    })
    .nullable(),
  time: z.strictObject({ seconds: number, secondsPerBlock: number, basis: z.array(z.string()) }).nullable(),
  notes: z.array(z.string()),
  unchecked: z.array(z.string()),
});

export const results = {
  quantize: z.strictObject({
    out: z.string(),
    bytes: number,
    bitsPerWeight: number,
    bitsPerParameter: number,
    seconds: number,
    peakRssBytes: number,
    resumedBlocks: number,
    layers: z.array(layer),
    transforms: z.array(z.looseObject({ block: number, method: z.string() })),
    finetune: z.array(z.strictObject({ block: number, method: z.string(), lossBefore: number, lossAfter: number })),
    badWindows: z.array(z.strictObject({ block: number, window: number })),
    notes: z.array(z.string()),
    warnings: z.record(z.string(), number),
  }),
  eval: evaluation,
  compare: comparison,
  generate: z.strictObject({ text: z.string(), tokens: number, finishReason: z.enum(['eos', 'length', 'context']) }),
  inspect: z.strictObject({
    directory: z.string(),
    modelType: z.string(),
    parameters: number,
    bytes: number,
    bitsPerWeight: nullable,
    bitsPerParameter: number,
    quantization: z
      .strictObject({
        formatVersion: z.literal(1),
        bits: number,
        groupSize: number,
        symmetric: z.boolean(),
        recipe: z.record(z.string(), z.unknown()),
      })
      .nullable(),
    tensors: z.array(z.strictObject({ name: z.string(), shape: z.array(number), stored: z.string(), bytes: number })),
  }),
  report: z.strictObject({ page: z.string(), layers: number, warnings: number }),
  bench: z.strictObject({
    machine: z.record(z.string(), z.union([z.string(), number])),
    rows: z.array(
      z.strictObject({
        by: z.string(),
        mode: modes,
        milliseconds: number,
        p10: number,
        p90: number,
        samples: number,
        normalizedMeanSquaredError: number,
        shape: z.string(),
        weights: z.string(),
        groupSize: number,
        tokens: number,
        threads: number,
        caches: z.enum(['hot', 'cold', 'idle']),
        matrices: number,
        rotatedBytes: number,
        gigabytesPerSecond: number,
        readGigabytesPerSecond: number,
        shareOfReadBandwidth: number,
        gigaMacsPerSecond: number,
      }),
    ),
  }),
  doctor: z.strictObject({
    version: z.string(),
    node: z.string(),
    platform: z.string(),
    features: z.array(z.string()),
    isa: z.string(),
    threads: number,
    kernels: z.record(z.string(), z.string()),
    lutGemm: z.array(
      z.strictObject({
        mode: z.enum(['exact', 'accurate', 'fast']),
        kind: z.enum(['uniform', 'planes']),
        bits: number,
        firstToken: number,
        lastToken: number.nullable(),
        by: z.string(),
      }),
    ),
    cuda: z.strictObject({
      state: z.string(),
      built: z.boolean(),
      message: z.string(),
      path: z.string(),
      builtFor: z.string(),
      driver: z.string().nullable(),
      device: z.string().nullable(),
    }),
    environment: z.record(z.string(), z.string()),
    advice: z.array(z.string()),
  }),
};

/** What `inspect --verify` prints. */
export const verification = z.strictObject({
  directory: z.string(),
  intact: z.boolean(),
  files: number,
  tensors: number,
  inputs: number,
  differences: z.array(
    z.strictObject({
      what: z.enum(['file', 'tensor', 'input']),
      name: z.string(),
      state: z.enum(['changed', 'missing', 'extra', 'unreadable']),
      expected: z.string().nullable(),
      found: z.string().nullable(),
    }),
  ),
});

export type CommandName = keyof typeof results;

const text = z.string().nullable();
const detail = z.union([z.string(), number]).nullable();
const failure = z.strictObject({
  lutra: z.string(),
  command: z.string(),
  ok: z.literal(false),
  error: z.strictObject({
    code: z.string().regex(/^(LUTRA_E_[A-Z_]+|ABORTED)$/),
    message: z.string(),
    where: text,
    found: detail,
    expected: detail,
    items: z.array(z.string()).nullable(),
    hint: text,
  }),
});

/** The one line that a successful command prints, as its result. */
export function resultOf<Name extends CommandName>(command: Name, stdout: string): z.infer<(typeof results)[Name]> {
  const success = z.strictObject({
    lutra: z.string(),
    command: z.literal(command),
    ok: z.literal(true),
    result: z.unknown(),
  });
  const { result } = success.parse(oneLine(stdout));
  return results[command].parse(result) as z.infer<(typeof results)[Name]>;
}

/** The one line that a failed command prints. */
export const failureOf = (stdout: string) => failure.parse(oneLine(stdout));

/** Parses stdout, which must be one line and nothing else. */
function oneLine(stdout: string): unknown {
  if (!/^[^\n]+\n$/.test(stdout)) throw new Error(`stdout is not one line: ${JSON.stringify(stdout.slice(0, 200))}`);
  return JSON.parse(stdout);
}

/** Every name of a field in a schema, nested ones included. */
export function fieldNames(schema: z.ZodType): string[] {
  if (schema instanceof z.ZodObject)
    return Object.entries(schema.shape as Record<string, z.ZodType>).flatMap(([name, inner]) => [
      name,
      ...fieldNames(inner),
    ]);
  if (schema instanceof z.ZodArray) return fieldNames(schema.element as z.ZodType);
  if (schema instanceof z.ZodNullable) return fieldNames(schema.unwrap() as z.ZodType);
  return [];
}
