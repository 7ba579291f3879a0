import { join } from 'node:path';
import { lutraError } from '../errors.js';
import {
  type Checkpoint,
  type CheckpointPlan,
  checkOutput,
  type PlannedTensor,
  planCheckpoint,
  readCheckpoint,
} from '../formats/index.js';
import { buildGraph, parseConfig } from '../models/index.js';
import { needsOf, normalizeRecipe, type Recipe, type ScaleDtype, type TensorSource } from '../quantization/index.js';
import { checkBudget } from './allocate.js';
import { type CalibrationInputs, readCalibration, windowNotes, windowSizes } from './calibration-inputs.js';
import { type InputFile, inputFiles, type ReadFiles } from './input-files.js';
import type { QuantizationJob } from './job.js';
import { estimateMemory, type MemoryEstimate } from './memory-estimate.js';
import { checkMemory } from './memory-limit.js';
import { checkPlan, entriesOf } from './preflight.js';
import type { Progress } from './progress.js';
import { requireText } from './recorded-job.js';
import { scratchBytes } from './scratch-bytes.js';
import { blockTransforms, replacedTensors, tensorSource } from './tensor-source.js';
import { fittingTokenizer, tokenizerNotes } from './tokenizer-check.js';
import { type UnfinishedWork, unfinishedWork } from './unfinished-work.js';

/** A job whose recipe, files, text and disk go together, as far as headers tell: no weight is read and nothing written yet. */
export interface PreparedJob {
  readonly recipe: Recipe;
  readonly source: Checkpoint;
  /** The model as the recipe's transforms of whole models make it. */
  readonly model: TensorSource;
  /** Tensors besides the quantized layers that the job writes itself. */
  readonly replaced: readonly PlannedTensor[];
  /** Null where nothing of the job reads text. */
  readonly calibration: CalibrationInputs | null;
  /** The output if every scale is stored as f16. */
  readonly checkpoint: CheckpointPlan;
  /** The files that the output is made from. */
  readonly inputs: readonly InputFile[];
  /** Those of them whose content was read. */
  readonly read: ReadFiles;
  /** Bytes of the files that lie beside the output while the job runs. */
  readonly scratchBytes: number;
  /** Where the output will lie: what it needs there with the scratch files, and what is free, null where nobody knows. */
  readonly disk: { readonly directory: string; readonly neededBytes: number; readonly freeBytes: number | null };
  readonly memory: MemoryEstimate;
  readonly unfinished: UnfinishedWork | null;
  /** What a person should know and no reason to refuse. */
  readonly notes: readonly string[];
  /** The output with these widths and types of scales. */
  planFor(widths: Recipe, scaleDtypes: ReadonlyMap<string, ScaleDtype>): Promise<CheckpointPlan>;
  [Symbol.asyncDispose](): Promise<void>;
}

/**
 * Checks a job before any work: options and recipe, every tensor's name, shape and type, the layout of every layer, the
 * calibration text and the tokenizer, that the output can be written, that the job keeps within its memory, and that what an
 * earlier run has left is of the same job.
 *
 * @param report hears how far the text is encoded
 * @throws what the checkpoint, the recipe, the calibration text and the disk give cause for, see docs/errors.md
 */
export async function prepareJob(
  job: QuantizationJob,
  report: (event: Progress) => void = () => {},
): Promise<PreparedJob> {
  const recipe = normalizeRecipe(job.recipe);
  requireCalibration(job, recipe);
  const source = await readCheckpoint(job.model);
  try {
    return await prepared(job, recipe, source, report);
  } catch (error) {
    await source.close();
    throw error;
  }
}

async function prepared(
  job: QuantizationJob,
  recipe: Recipe,
  source: Checkpoint,
  report: (event: Progress) => void,
): Promise<PreparedJob> {
  const config = parseConfig(source.config, join(job.model, 'config.json'));
  const graph = buildGraph(config, (name) => source.has(name));
  const strangers = checkPlan(source, graph, recipe);
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
  const checkpoint = await planFor(recipe, new Map());
  const inputs = await inputFiles(source, checkpoint);
  const text = readsCalibration(job, recipe) ? job.calibration : undefined;
  const sizes = text ? await windowSizes(text, config) : null;
  const scratch = sizes ? scratchBytes(config, sizes, recipe) : 0;
  const { resume = true, overwrite } = job;
  const outputOptions = { overwrite, leftover: resume ? 'resume' : 'remove', scratchBytes: scratch } as const;
  const look = () => checkOutput(checkpoint, job.out, outputOptions);
  const { leftover, journal, ...disk } = await look();
  const memory = estimateMemory({ model, recipe, sizes }, process.memoryUsage.rss());
  checkMemory(memory, job.maxMemoryBytes);
  const read = text ? await fittingTokenizer(job.model, config) : null;
  const calibration = text && read ? await readCalibration(text, read.tokenizer, config, job.signal, report) : null;
  if (calibration) requireText(job.expected, calibration.record.sha256, job.calibration?.file ?? 'calibration.texts');
  const { shardBytes } = checkpoint.safetensors;
  const known = { recipe, shardBytes, calibration: calibration?.record ?? null };
  const unfinished = await unfinishedWork(job, { leftover, journal }, known).catch(async (error: unknown) => {
    // Another run may have taken it over meanwhile, and brought it to its end: then that is what its caller must hear.
    if ((await look()).leftover === 'none') return null;
    throw error;
  });
  const notes = calibration
    ? [...strangers, ...windowNotes(calibration)]
    : [...strangers, ...(await tokenizerNotes(job.model, config))];
  return {
    recipe,
    source,
    model,
    replaced,
    calibration,
    checkpoint,
    inputs,
    read: { 'config.json': source.configHash, ...read?.files },
    scratchBytes: scratch,
    disk,
    memory,
    unfinished,
    notes,
    planFor,
    [Symbol.asyncDispose]: () => source.close(),
  };
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
  if (!calibration && needsCalibration(recipe))
    throw lutraError('LUTRA_E_OPTION', {
      message: 'this recipe needs a calibration text',
      where: 'calibration',
      hint: 'Give text like that which the model will see: `calibration`, or --calibration on the command line.',
    });
}
