import { join } from 'node:path';
import { requireSource } from '../calibration/index.js';
import { lutraError } from '../errors.js';
import { type CheckpointPlan, type Outputs, planCheckpoint, readCheckpoint, requireRoom } from '../formats/index.js';
import { buildGraph, type ModelGraph, parseConfig } from '../models/index.js';
import { checkThreads } from '../ops/index.js';
import { needsOf, normalizeRecipe, type Recipe, type ScaleDtype, type TensorSource } from '../quantization/index.js';
import { ActivationGenerations, type Checksums } from './activation-generations.js';
import { ActivationStore } from './activation-store.js';
import { allocate, checkBudget } from './allocate.js';
import { type BlockStream, streamBlocks, streamMatrices } from './block-stream.js';
import type { ActivationStores } from './block-work.js';
import { type CalibrationInputs, readCalibration } from './calibration-inputs.js';
import { HeldOutWindows } from './held-out.js';
import type { JobResults, QuantizationJob, QuantizationResult } from './job.js';
import type { JobIdentity } from './job-identity.js';
import { JobRun } from './job-run.js';
import type { Choices, Journal } from './journal.js';
import { type JobContext, LayerWriter } from './layer-writer.js';
import { hashInputs, manifestFile, manifestOf, provenance, runLogFile } from './manifest.js';
import { checkPlan, entriesOf, inspectWeights, linearsOf } from './preflight.js';
import { requireInputs, requireText } from './recorded-job.js';
import { blockTransforms, replacedTensors, tensorSource } from './tensor-source.js';
import { countWarnings } from './warnings.js';

/**
 * Quantizes a model directory into a new one: every linear layer of its blocks; what no method of the recipe changes stays byte
 * for byte. Methods that need statistics see a block at a time, fed by the quantized blocks before it. The same job
 * writes the same bytes for every number of threads, and in however many runs.
 *
 * What ends a run before its first block is finished leaves nothing behind. From then on `<out>.partial` keeps the finished
 * blocks, and the same call goes on behind them (docs/reliability.md).
 *
 * @throws what the checkpoint, the recipe, the calibration text and the disk give cause for, see docs/errors.md;
 *   `LUTRA_E_RESUME_MISMATCH` where another job's work is in the way, `LUTRA_E_RESUME_DAMAGED` where this one's is not as it was
 *   left; rejects with `job.signal.reason` when aborted.
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
  const supposed = await planFor(recipe, new Map());
  const run = await JobRun.claim(job, source.directory, graph.blocks.length);
  try {
    await requireRoom(supposed, run.output);
    const known = { recipe, shardBytes: supposed.safetensors.shardBytes };
    const earlier = await run.earlier(known);
    const scaleDtypes = earlier ? null : await inspectWeights(model, recipe, context, context.report);
    const inputs = await hashInputs(source, supposed, signal, context.report);
    requireInputs(job.expected, inputs, job.model);
    const calibration = readsCalibration(job, recipe) ? await calibrationOf(job, graph, context) : null;
    const identity = { lutra: provenance(), ...known, calibration: calibration?.record ?? null, inputs };
    earlier?.requireSame(identity);
    if (earlier && run.output.leftover === 'published')
      return await resultOf(job.out, await run.finishPublished(earlier, identity), started);
    const chosen = earlier?.choices ?? (await choose({ model, calibration, scaleDtypes: scaleDtypes!, run }, context));
    const journal = earlier ?? run.begin(identity, chosen);
    const plan = await planFor(chosen.recipe, chosen.scaleDtypes);
    const work = { model, identity, calibration, journal, plan, run };
    const written = await writeLayers(work, { ...context, recipe: chosen.recipe }, started);
    return await resultOf(job.out, written, started);
  } catch (error) {
    throw await run.leave(error);
  }
}

/** What is chosen before the first block: widths, and the types of the scales that go with them. */
async function choose(
  {
    model,
    calibration,
    scaleDtypes,
    run,
  }: Pick<Writing, 'model' | 'calibration' | 'run'> & Pick<Choices, 'scaleDtypes'>,
  context: JobContext,
): Promise<Choices> {
  const { recipe } = context;
  const widths = calibration ? await allocate(model, calibration, run.output.work, context) : recipe;
  if (widths === recipe) return { recipe, scaleDtypes };
  return { recipe: widths, scaleDtypes: await inspectWeights(model, widths, context, context.report) };
}

interface Writing {
  model: TensorSource;
  identity: JobIdentity;
  calibration: CalibrationInputs | null;
  journal: Journal;
  plan: CheckpointPlan;
  run: JobRun;
}

async function writeLayers(
  { model, identity, calibration, journal, plan, run }: Writing,
  context: JobContext,
  started: number,
): Promise<JobResults & Pick<QuantizationResult, 'resumedBlocks'>> {
  const { graph } = model;
  const { recipe, signal, report } = context;
  const resumedBlocks = journal.blocks.length;
  if (resumedBlocks > 0) report({ phase: 'resume', block: resumedBlocks, blocks: graph.blocks.length });
  const writer = await run.open(plan, journal);
  const dense = new Map(replacedTensors(model, recipe).map(({ name }) => [name, model.dtype(name)]));
  const layers = new LayerWriter(context, writer, linearsOf(graph).length, graph.blocks.length, dense);
  layers.takeOver(journal.blocks);
  const stream = { source: model, layers, journal, context };
  if (!calibration) await streamMatrices(stream);
  else if (resumedBlocks < graph.blocks.length)
    await withStores(stream, calibration, run.output.work, (stores) => streamBlocks(stream, calibration, stores));
  report({ phase: 'finish' });
  await layers.writeRest(model);
  const { results } = journal;
  const documents = (outputs: Outputs) => ({
    [manifestFile]: manifestOf(identity, results, outputs),
    [runLogFile]: { seconds: secondsSince(started), peakRssBytes: peakRssBytes(), resumedBlocks },
  });
  await writer.finish(documents, { signal });
  return { ...results, resumedBlocks };
}

/** Scratch files beside the checkpoint that grows: for what enters a block, and more where blocks are finetuned or windows held out. */
async function withStores(
  { source, journal, context }: BlockStream,
  calibration: CalibrationInputs,
  directory: string,
  work: (stores: ActivationStores) => Promise<void>,
): Promise<void> {
  const { recipe, signal } = context;
  const { config } = source.graph;
  const { blocks, activations } = journal;
  const keptOf = (checksums: Checksums | null | undefined) => (checksums ? { blocks: blocks.length, checksums } : null);
  const shape = { sequenceLength: calibration.sequenceLength, hiddenSize: config.hiddenSize };
  const kept = keptOf(activations?.inputs);
  const inputs = await ActivationGenerations.open(directory, 'activations', { shape, kept, signal });
  let targets: ActivationStore | null = null;
  let heldOut: HeldOutWindows | null = null;
  try {
    if (recipe.finetune.length) targets = await ActivationStore.create(join(directory, 'targets.scratch'), signal);
    heldOut = await HeldOutWindows.create(
      config,
      calibration,
      { directory, kept: keptOf(activations?.heldOut) },
      context,
    );
    await work({ inputs, targets, heldOut });
  } finally {
    await inputs.close();
    await targets?.dispose();
    await heldOut?.close();
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
async function resultOf(
  out: string,
  results: JobResults & Pick<QuantizationResult, 'resumedBlocks'>,
  started: number,
): Promise<QuantizationResult> {
  await using written = await readCheckpoint(out);
  return {
    out,
    bytes: written.bytes,
    bitsPerWeight: written.bitsPerWeight ?? 0,
    bitsPerParameter: written.bitsPerParameter,
    seconds: secondsSince(started),
    peakRssBytes: peakRssBytes(),
    warnings: countWarnings(results),
    ...results,
  };
}

const secondsSince = (started: number): number => (performance.now() - started) / 1000;
const peakRssBytes = (): number => process.resourceUsage().maxRSS * 1024;
