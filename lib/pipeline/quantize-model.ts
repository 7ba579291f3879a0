import { join } from 'node:path';
import { requireSource } from '../calibration/index.js';
import { lutraError } from '../errors.js';
import { CheckpointWriter, type Outputs, planCheckpoint, readCheckpoint } from '../formats/index.js';
import { buildGraph, type LlamaConfig, type ModelGraph, parseConfig } from '../models/index.js';
import { checkThreads } from '../ops/index.js';
import { needsOf, normalizeRecipe, type Recipe, type ScaleDtype, type TensorSource } from '../quantization/index.js';
import { ActivationStore } from './activation-store.js';
import { allocate, checkBudget } from './allocate.js';
import { streamBlocks, streamMatrices } from './block-stream.js';
import type { ActivationStores } from './block-work.js';
import { type CalibrationInputs, readCalibration } from './calibration-inputs.js';
import { HeldOutWindows } from './held-out.js';
import type { QuantizationJob, QuantizationResult } from './job.js';
import { type JobContext, LayerWriter } from './layer-writer.js';
import { hashInputs, manifestFile, manifestOf, runLogFile } from './manifest.js';
import { checkPlan, entriesOf, inspectWeights, linearsOf } from './preflight.js';
import { requireInputs, requireText } from './recorded-job.js';
import { blockTransforms, replacedTensors, tensorSource } from './tensor-source.js';

/**
 * Quantizes a model directory into a new one: every linear layer of its blocks; what no method of the recipe changes stays byte
 * for byte. Methods that need statistics see a block at a time, fed by the quantized blocks before it. The same job
 * writes the same bytes for every number of threads. Whatever fails, nothing is left behind.
 *
 * @throws what the checkpoint, the recipe, the calibration text and the disk give cause for, see docs/errors.md; rejects with
 *   `job.signal.reason` when aborted.
 */
export async function quantizeModel(job: QuantizationJob): Promise<QuantizationResult> {
  const started = performance.now();
  const { signal, threads = 0, strict = false, onProgress, onLayer } = job;
  signal?.throwIfAborted();
  checkThreads(threads, 'quantizeModel.threads');
  const recipe = normalizeRecipe(job.recipe);
  const context: JobContext = { recipe, strict, threads, signal, report: (event) => onProgress?.(event), onLayer };
  requireCalibration(job, recipe);
  await using source = await readCheckpoint(job.model);
  const config = parseConfig(source.config, join(job.model, 'config.json'));
  const graph = buildGraph(config, (name) => source.has(name));
  checkPlan(source, graph, recipe);
  const model = tensorSource(source, graph, recipe);
  checkBudget(model, recipe);
  const replaced = replacedTensors(model, recipe);
  const planFor = (widths: Recipe, scaleDtypes: ReadonlyMap<string, ScaleDtype>) =>
    planCheckpoint({
      source,
      quantized: entriesOf(graph, widths, scaleDtypes),
      replaced,
      config: graph.tied && !model.graph.tied ? { tie_word_embeddings: false } : {},
      recipe,
      shardBytes: job.shardBytes,
    });

  // The first plan supposes f16 scales throughout, so that an output that cannot be written is known before any work.
  let plan = await planFor(recipe, new Map());
  let writer = await CheckpointWriter.create(plan, job.out, { overwrite: job.overwrite ?? false });
  try {
    let scaleDtypes = await inspectWeights(model, recipe, context, context.report);
    const inputs = await hashInputs(source, plan, signal, context.report);
    requireInputs(job.expected, inputs, job.model);
    const calibration = readsCalibration(job, recipe) ? await calibrationOf(job, graph, context) : null;
    const chosen = calibration ? await allocate(model, calibration, writer.directory, context) : recipe;
    if (chosen !== recipe) scaleDtypes = await inspectWeights(model, chosen, context, context.report);
    if (chosen !== recipe || [...scaleDtypes.values()].some((dtype) => dtype !== 'f16')) {
      await writer.abort();
      plan = await planFor(chosen, scaleDtypes);
      writer = await CheckpointWriter.create(plan, job.out, { overwrite: job.overwrite ?? false });
    }
    const work = { model, inputs, calibration, writer };
    const written = await writeLayers(recipe, work, { ...context, recipe: chosen }, started);
    return await resultOf(job.out, written, started);
  } finally {
    await writer.abort();
  }
}

type Results = Pick<QuantizationResult, 'layers' | 'transforms' | 'finetune'>;

interface Writing {
  model: TensorSource;
  /** Hashes of what the checkpoint is made from. */
  inputs: Record<string, string>;
  calibration: CalibrationInputs | null;
  writer: CheckpointWriter;
}

async function writeLayers(
  written: Recipe,
  { model, inputs, calibration, writer }: Writing,
  context: JobContext,
  started: number,
): Promise<Results> {
  const { graph } = model;
  const { recipe, signal, report } = context;
  const dense = new Map(replacedTensors(model, recipe).map(({ name }) => [name, model.dtype(name)]));
  const layers = new LayerWriter(context, writer, linearsOf(graph).length, graph.blocks.length, dense);
  if (calibration) {
    const stream = (stores: ActivationStores) => streamBlocks(model, layers, calibration, stores, context);
    await withStores({ directory: writer.directory, config: graph.config, calibration }, context, stream);
  } else await streamMatrices(model, layers, context);
  report({ phase: 'finish' });
  await layers.writeRest(model);
  const results = { layers: layers.results, transforms: layers.transforms, finetune: layers.finetune };
  const { shardBytes } = writer.plan.safetensors;
  const record = { recipe: written, calibration: calibration?.record ?? null, shardBytes, inputs, ...results };
  const documents = (outputs: Outputs) => ({
    [manifestFile]: manifestOf({ ...record, outputs }),
    [runLogFile]: { seconds: secondsSince(started), peakRssBytes: peakRssBytes() },
  });
  await writer.finish(documents, { signal });
  return results;
}

/** Scratch files in the directory that grows: for what enters a block, and more where blocks are finetuned or windows held out. */
async function withStores(
  { directory, config, calibration }: { directory: string; config: LlamaConfig; calibration: CalibrationInputs },
  context: JobContext,
  work: (stores: ActivationStores) => Promise<void>,
): Promise<void> {
  const { recipe, signal } = context;
  const inputs = await ActivationStore.create(join(directory, 'activations.scratch'), signal);
  let targets: ActivationStore | null = null;
  let heldOut: HeldOutWindows | null = null;
  try {
    if (recipe.finetune.length) targets = await ActivationStore.create(join(directory, 'targets.scratch'), signal);
    heldOut = await HeldOutWindows.create(config, calibration, directory, context);
    await work({ inputs, targets, heldOut });
  } finally {
    await inputs.dispose();
    await targets?.dispose();
    await heldOut?.dispose();
  }
}

/** Whether a recipe needs text; others do not read it. */
export const needsCalibration = (recipe: Recipe): boolean =>
  needsOf(recipe).length > 0 ||
  recipe.finetune.length > 0 ||
  recipe.allocation !== null ||
  blockTransforms(recipe).length > 0;

/** Windows that are held out measure every method. */
const readsCalibration = ({ calibration }: QuantizationJob, recipe: Recipe): boolean =>
  needsCalibration(recipe) || (calibration?.heldOut ?? 0) > 0;

function requireCalibration({ calibration }: QuantizationJob, recipe: Recipe): void {
  if (calibration) requireSource(calibration);
  if (!calibration && needsCalibration(recipe))
    throw lutraError('LUTRA_E_OPTION', {
      message: 'this recipe needs a calibration text',
      where: 'calibration',
      hint: 'Give text like that which the model will see: `calibration`, or --calibration on the command line.',
    });
}

async function calibrationOf(
  { calibration, model, expected }: QuantizationJob,
  { config }: ModelGraph,
  { signal, report }: JobContext,
): Promise<CalibrationInputs | null> {
  if (!calibration) return null;
  const inputs = await readCalibration(calibration, model, config, signal);
  requireText(expected, inputs.record.sha256, calibration.file ?? 'calibration.texts');
  const { tokens, windows, sequenceLength } = inputs;
  report({ phase: 'calibrate', tokens, windows: windows.length, sequenceLength });
  return inputs;
}

/** Opens what was written: a checkpoint that cannot be read again is none. */
async function resultOf(out: string, results: Results, started: number): Promise<QuantizationResult> {
  await using written = await readCheckpoint(out);
  return {
    out,
    bytes: written.bytes,
    bitsPerWeight: written.bitsPerWeight ?? 0,
    bitsPerParameter: written.bitsPerParameter,
    seconds: secondsSince(started),
    peakRssBytes: peakRssBytes(),
    ...results,
  };
}

const secondsSince = (started: number): number => (performance.now() - started) / 1000;
const peakRssBytes = (): number => process.resourceUsage().maxRSS * 1024;
