import { bytesOf } from '../formats/index.js';
import { checkOptions } from '../ops/index.js';
import { gridOf, type Recipe } from '../quantization/index.js';
import { elements } from '../tensor/index.js';
import { checkJob } from './check-job.js';
import type { QuantizationJob } from './job.js';
import type { MemoryEstimate } from './memory-estimate.js';
import { type PreparedJob, prepareJob } from './prepare-job.js';
import { measureTime, type TimeEstimate } from './time-estimate.js';
import type { UnfinishedWork } from './unfinished-work.js';

/** What a job is going to do, known from headers before any work. Sizes are in bytes. */
export interface QuantizationPlan {
  model: string;
  out: string;
  recipe: Recipe;
  blocks: PlannedBlock[];
  output: {
    /** Of all tensors as they are stored. */
    bytes: number;
    files: { name: string; bytes: number }[];
    bitsPerWeight: number;
    bitsPerParameter: number;
  };
  /** Null where nothing of the job reads text. */
  calibration: { windows: number; heldOut: number; sequenceLength: number; tokens: number } | null;
  disk: {
    /** The directory that there is already, in or below which the output will lie. */
    directory: string;
    /** Output and scratch files together. */
    neededBytes: number;
    /** Activations that lie beside the output while the job runs. */
    scratchBytes: number;
    /** Null where the file system does not tell. */
    freeBytes: number | null;
  };
  memory: MemoryEstimate & { limitBytes: number | null };
  /** What an earlier run has left of this job; null where it has left nothing. */
  unfinished: UnfinishedWork | null;
  /** Null where it was not asked for, or nothing could be measured in the time that is given to it. */
  time: TimeEstimate | null;
  /** What a person should know, and no reason to refuse. */
  notes: string[];
  /** What only reading all weights can tell: the job does so before its first calibration token. */
  unchecked: string[];
}

export interface PlannedBlock {
  /** From 0. */
  block: number;
  layers: PlannedLayer[];
  /** Of the block's tensors in the model. */
  readBytes: number;
  /** Of its quantized layers. */
  writtenBytes: number;
}

export interface PlannedLayer {
  name: string;
  bits: number;
  groupSize: number;
  /** Columns of a row's last group, where it is shorter than the others; else null. */
  tail: number | null;
  bytes: number;
}

/**
 * Plans a job without running it: everything that `quantizeModel` checks before it reads weights is checked, and nothing is
 * written. Work of an earlier run that it would go on with is told, work of another job refused.
 *
 * @param options.measureTime runs a part of one block, for some seconds, to tell how long the job will take.
 * @throws what `quantizeModel` throws before its work, see docs/errors.md
 */
export async function planQuantization(
  job: QuantizationJob,
  options: { measureTime?: boolean } = {},
): Promise<QuantizationPlan> {
  checkOptions(options, { measureTime: true }, 'planQuantization');
  await checkJob(job);
  await using prepared = await prepareJob(job);
  const plan = planOf(job, prepared);
  return options.measureTime ? { ...plan, time: await measureTime(prepared, job) } : plan;
}

/** What a prepared job is going to do. */
export function planOf(job: QuantizationJob, prepared: PreparedJob): QuantizationPlan {
  const { recipe, calibration, disk, scratchBytes, memory, unfinished } = prepared;
  const blocks = blocksOf(prepared);
  return {
    model: job.model,
    out: job.out,
    recipe,
    blocks,
    output: outputOf(prepared, blocks),
    calibration: calibration && {
      windows: calibration.windows.length,
      heldOut: calibration.heldOut.length,
      sequenceLength: calibration.sequenceLength,
      tokens: calibration.tokens,
    },
    disk: { ...disk, scratchBytes },
    memory: { ...memory, limitBytes: job.maxMemoryBytes ?? null },
    unfinished,
    time: null,
    notes: [...prepared.notes, ...notesOf(recipe, blocks)],
    unchecked: uncheckedOf(prepared),
  };
}

/** A job that goes on has looked at the weights before; what it takes over is checked when it runs. */
const uncheckedOf = ({ source, unfinished }: PreparedJob): string[] =>
  unfinished?.takenOver
    ? [
        "whether the model's files are those that the finished blocks were made from",
        'whether what is on the disk of the finished blocks is as it was written',
      ]
    : [
        `whether all of ${source.tensors.size} tensors are finite`,
        'whether f16 holds the scales of every layer: those that it does not hold are stored as bf16',
      ];

function blocksOf({ model, recipe, checkpoint, source }: PreparedJob): PlannedBlock[] {
  return model.graph.blocks.map(({ index, linears, tensors }) => {
    const layers = linears.map(({ name, inFeatures }): PlannedLayer => {
      const { bits, groupSize } = gridOf(recipe, name);
      const tail = groupSize === -1 ? 0 : inFeatures % groupSize;
      return { name, bits, groupSize, tail: tail || null, bytes: bytesOf(name, checkpoint.quantized.get(name)!) };
    });
    return {
      block: index,
      layers,
      readBytes: tensors.reduce((sum, name) => sum + (source.tensors.get(name)?.bytes ?? 0), 0),
      writtenBytes: layers.reduce((sum, { bytes }) => sum + bytes, 0),
    };
  });
}

function outputOf({ model, checkpoint }: PreparedJob, blocks: readonly PlannedBlock[]): QuantizationPlan['output'] {
  const { bytes, files } = checkpoint.safetensors;
  const layers = model.graph.blocks.flatMap(({ linears }) => linears);
  const weights = layers.reduce((sum, { outFeatures, inFeatures }) => sum + outFeatures * inFeatures, 0);
  const written = blocks.reduce((sum, { writtenBytes }) => sum + writtenBytes, 0);
  const parameters = [...model.graph.shapes.values()].reduce((sum, shape) => sum + elements(shape), 0);
  return {
    bytes,
    files: files.map(({ name, size }) => ({ name, bytes: size })),
    bitsPerWeight: (8 * written) / weights,
    bitsPerParameter: (8 * bytes) / parameters,
  };
}

function notesOf({ allocation }: Recipe, blocks: readonly PlannedBlock[]): string[] {
  const tails = blocks.flatMap(({ layers }) => layers).filter(({ tail }) => tail !== null);
  const notes: string[] = [];
  if (tails.length)
    notes.push(
      `${tails.length} layers, such as ${tails[0]!.name}, end their rows with a group of ${tails[0]!.tail} columns`,
    );
  if (allocation)
    notes.push(
      `widths are chosen for ${allocation.bitsPerWeight} bits per weight: sizes here are those before the choice`,
    );
  return notes;
}
