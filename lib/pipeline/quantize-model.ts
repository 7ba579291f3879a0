import { join } from 'node:path';
import { type CheckpointPlan, type Outputs, requireRoom, type StoredSizes } from '../formats/index.js';
import type { TensorSource } from '../quantization/index.js';
import { ActivationGenerations, type Checksums } from './activation-generations.js';
import { ActivationStore } from './activation-store.js';
import { allocate } from './allocate.js';
import { answerAbort } from './answer-abort.js';
import { type BlockStream, streamBlocks, streamMatrices } from './block-stream.js';
import type { ActivationStores } from './block-work.js';
import type { CalibrationInputs } from './calibration-inputs.js';
import { checkJob } from './check-job.js';
import { withClosing } from './closing.js';
import { HeldOutWindows } from './held-out.js';
import { hashInputs } from './input-files.js';
import type { JobResults, QuantizationJob, QuantizationResult } from './job.js';
import type { JobIdentity } from './job-identity.js';
import { JobRun } from './job-run.js';
import type { Choices, Journal } from './journal.js';
import { type JobContext, LayerWriter } from './layer-writer.js';
import { manifestFile, manifestOf, provenance, runLogFile } from './manifest.js';
import { memoryWatch } from './memory-limit.js';
import { planOf } from './plan.js';
import { inspectWeights, linearsOf } from './preflight.js';
import { prepareJob } from './prepare-job.js';
import { type Progress, placeOf } from './progress.js';
import { requireInputs } from './recorded-job.js';
import { RunLog } from './run-log.js';
import { refuseRecorded } from './strict.js';
import { replacedTensors } from './tensor-source.js';
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
 *   left; rejects with `job.signal.reason` when aborted. An abort in a sync of the disk is answered before the sync ends: the
 *   output is given back when it does, and refused with `LUTRA_E_EXISTS` until then. `planQuantization(job)` tells in
 *   `unfinished` how many blocks an aborted run has kept.
 */
export async function quantizeModel(job: QuantizationJob): Promise<QuantizationResult> {
  await checkJob(job);
  return await answerAbort((signal) => runJob({ ...job, signal }), job.signal);
}

async function runJob(job: QuantizationJob): Promise<QuantizationResult> {
  const started = performance.now();
  const { signal, threads = 0, strict = false, onProgress, onLayer } = job;
  const log = new RunLog();
  const watch = memoryWatch(job.maxMemoryBytes);
  const report = (event: Progress) => {
    // An abort may have been answered already.
    signal?.throwIfAborted();
    log.follow(event);
    onProgress?.(event);
    if (event.phase !== 'plan') watch(placeOf(event));
  };
  await using prepared = await prepareJob(job, report);
  const { recipe, model, calibration, checkpoint: supposed } = prepared;
  const context: JobContext = { recipe, strict, threads, signal, report, onLayer };
  const plan = planOf(job, prepared);
  const { notes } = plan;
  report({ phase: 'plan', plan });
  if (calibration) reportCalibration(calibration, context);
  const run = await JobRun.claim(job, prepared.source.directory, model.graph.blocks.length);
  try {
    await requireRoom(supposed, run.output);
    const known = { recipe, shardBytes: supposed.safetensors.shardBytes };
    const earlier = await run.earlier(known);
    if (earlier && strict) refuseRecorded(earlier.results);
    const scaleDtypes = earlier ? null : await inspectWeights(model, recipe, context, context.report);
    const inputs = await hashInputs(prepared.source, prepared, signal, context.report);
    requireInputs(job.expected, inputs, job.model);
    const identity = { lutra: provenance(), ...known, calibration: calibration?.record ?? null, inputs };
    earlier?.requireSame(identity);
    if (earlier && run.output.leftover === 'published')
      return resultOf({ out: job.out, notes }, await run.finishPublished(earlier, identity), started);
    const chosen = earlier?.choices ?? (await choose({ model, calibration, scaleDtypes: scaleDtypes!, run }, context));
    const journal = earlier ?? run.begin(identity, chosen);
    const checkpoint = await prepared.planFor(chosen.recipe, chosen.scaleDtypes);
    const work = { model, identity, calibration, journal, plan: checkpoint, run, log };
    const written = await writeLayers(work, { ...context, recipe: chosen.recipe }, started);
    return resultOf({ out: job.out, notes }, written, started);
  } catch (error) {
    throw await run.leave(error);
  }
}

function reportCalibration({ tokens, windows, sequenceLength }: CalibrationInputs, { report }: JobContext): void {
  report({ phase: 'calibrate', tokens, windows: windows.length, sequenceLength });
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
  log: RunLog;
}

async function writeLayers(
  { model, identity, calibration, journal, plan, run, log }: Writing,
  context: JobContext,
  started: number,
): Promise<Written> {
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
    [runLogFile]: { seconds: secondsSince(started), peakRssBytes: peakRssBytes(), resumedBlocks, ...log.parts },
  });
  const sizes = await writer.finish(documents, { signal, inputs: identity.inputs });
  return { ...results, ...sizes, resumedBlocks };
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
  const run = async () => {
    if (recipe.finetune.length) targets = await ActivationStore.create(join(directory, 'targets.scratch'), signal);
    const files = { directory, kept: keptOf(activations?.heldOut) };
    heldOut = await HeldOutWindows.create(config, calibration, files, context);
    await work({ inputs, targets, heldOut });
  };
  await withClosing(
    run,
    () => inputs.close(),
    () => targets?.dispose(),
    () => heldOut?.close(),
  );
}

/** What a run tells of the output that it has written or finished. */
type Written = JobResults & StoredSizes & Pick<QuantizationResult, 'resumedBlocks'>;

function resultOf(
  told: Pick<QuantizationResult, 'out' | 'notes'>,
  { bitsPerWeight, ...written }: Written,
  started: number,
): QuantizationResult {
  return {
    ...told,
    bitsPerWeight: bitsPerWeight ?? 0,
    seconds: secondsSince(started),
    peakRssBytes: peakRssBytes(),
    warnings: countWarnings(written),
    ...written,
  };
}

const secondsSince = (started: number): number => (performance.now() - started) / 1000;
const peakRssBytes = (): number => process.resourceUsage().maxRSS * 1024;
