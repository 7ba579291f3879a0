import { basename, join, resolve } from 'node:path';
import { HistogramCollector, type WeightHistograms } from '../comparison/index.js';
import { lutraError } from '../errors.js';
import { type Checkpoint, hashFile, readCheckpoint, readOwnJson } from '../formats/index.js';
import { dequantize } from '../ops/index.js';
import { type Manifest, readManifest, runLogFile } from '../pipeline/index.js';
import type { QuantizedTensor, Tensor } from '../tensor/index.js';

/** A finished job as its own files tell of it. */
export interface JobReport {
  /** The directory's name. */
  name: string;
  manifest: Manifest;
  runLog: { seconds: number | null; peakRssBytes: number | null };
  bitsPerWeight: number | null;
  bitsPerParameter: number;
  /** Bytes of all tensors, by what they are; empty kinds are left out. */
  sizes: { what: string; bytes: number }[];
  /** By kind of layer ("q_proj"), in the order of the data flow. */
  weights: { kind: string; histograms: WeightHistograms }[];
  /** Whether the histograms know the weights before quantization. */
  compared: boolean;
}

/**
 * Reads what a page about a job needs: its manifest and run log, and all quantized weights, a layer in memory at a time; beside
 * them those of the model it was made from, where that is given.
 *
 * @throws `LUTRA_E_MANIFEST` where there is none, and what reading a checkpoint throws
 */
export async function readJobReport(
  directory: string,
  options: { model?: string | undefined; signal?: AbortSignal | undefined } = {},
): Promise<JobReport> {
  const { model, signal } = options;
  const manifest = await readManifest(directory);
  if (model !== undefined) await requireOriginal(manifest, model, signal);
  await using checkpoint = await readCheckpoint(directory);
  await using original = model === undefined ? null : await readCheckpoint(model);
  return {
    name: basename(resolve(directory)),
    manifest,
    runLog: await readRunLog(directory),
    bitsPerWeight: checkpoint.bitsPerWeight,
    bitsPerParameter: checkpoint.bitsPerParameter,
    sizes: sizesOf(checkpoint),
    weights: await histogramsOf(checkpoint, original, signal),
    compared: original !== null,
  };
}

/**
 * The small files of the model tell it from others; its weights are not hashed for a page.
 *
 * @throws `LUTRA_E_INPUT_CHANGED` where the checkpoint was made from another model
 */
async function requireOriginal({ inputs }: Manifest, model: string, signal: AbortSignal | undefined): Promise<void> {
  for (const [name, expected] of Object.entries(inputs)) {
    if (name.endsWith('.safetensors')) continue;
    const found = await hashFile(join(model, name), { signal });
    if (found !== expected)
      throw lutraError('LUTRA_E_INPUT_CHANGED', {
        message: 'the checkpoint was made from another model',
        where: join(model, name),
        found,
        expected,
        hint: 'Give the directory that was quantized.',
      });
  }
}

/** The run log differs from run to run and is no part of the checkpoint: it may be gone. */
async function readRunLog(directory: string): Promise<JobReport['runLog']> {
  const number = (value: unknown) => (typeof value === 'number' && Number.isFinite(value) ? value : null);
  try {
    const log = await readOwnJson(join(directory, runLogFile));
    return { seconds: number(log.seconds), peakRssBytes: number(log.peakRssBytes) };
  } catch {
    return { seconds: null, peakRssBytes: null };
  }
}

const partNames = [
  ['codes', /\.codes$/],
  ['scales and alphas', /\.(scales|alphas)$/],
  ['offsets', /\.offsets$/],
  ['low-rank pairs', /\.sub_[ab](_scales)?$/],
] as const;

function sizesOf({ reader, tensors }: Checkpoint): JobReport['sizes'] {
  const bytes = new Map<string, number>();
  for (const { name, begin, end } of reader.entries.values()) {
    const part = tensors.has(name) ? undefined : partNames.find(([, pattern]) => pattern.test(name))?.[0];
    const embeds = /^(model\.embed_tokens|lm_head)\./.test(name);
    const what = part ?? (embeds ? 'embedding and output layer' : 'norms and the rest');
    bytes.set(what, (bytes.get(what) ?? 0) + end - begin);
  }
  const order = [...partNames.map(([what]) => what), 'embedding and output layer', 'norms and the rest'];
  return order.flatMap((what) => (bytes.get(what) ? [{ what, bytes: bytes.get(what)! }] : []));
}

async function histogramsOf(
  checkpoint: Checkpoint,
  original: Checkpoint | null,
  signal: AbortSignal | undefined,
): Promise<JobReport['weights']> {
  const collectors = new Map<string, HistogramCollector>();
  for (const { name, quantized } of checkpoint.tensors.values()) {
    if (!quantized) continue;
    const kind = kindOf(name);
    const collector = collectors.get(kind) ?? new HistogramCollector();
    collectors.set(kind, collector);
    using packed = (await checkpoint.load(name, { signal })) as QuantizedTensor;
    // Without the original, its place is taken by what became of it: the errors are zero then, and not shown.
    using before = original ? ((await original.load(name, { signal })) as Tensor) : dequantize(packed);
    await collector.add({ name, original: before, packed }, signal);
  }
  return [...collectors].map(([kind, { histograms }]) => ({ kind, histograms }));
}

/** `q_proj` of `model.layers.0.self_attn.q_proj.weight`. */
export const kindOf = (name: string): string =>
  name
    .replace(/\.weight$/, '')
    .split('.')
    .at(-1) ?? name;

/** The block that a layer is in; null where its name tells none. */
export const blockOf = (name: string): number | null => {
  const block = name.split('.').find((part) => /^\d+$/.test(part));
  return block === undefined ? null : Number(block);
};
