import type { QuantizationPlan } from './plan.js';

/** One step of a job. Counts begin at 1: `window` of `windows` is done when the event is sent. */
export type Progress =
  /** The calibration text is being encoded, before the plan: so many of its UTF-16 units became tokens. */
  | { phase: 'encode'; characters: number; totalCharacters: number }
  /** Everything that headers tell was checked; this is what the job is going to do. */
  | { phase: 'plan'; plan: QuantizationPlan }
  /** A layer's weights were read, found finite, and fit their grid. */
  | { phase: 'preflight'; layer: string; index: number; layers: number }
  /** An input file is being hashed: `bytes` of the `totalBytes` of all of them are done. */
  | { phase: 'hash'; file: string; bytes: number; totalBytes: number }
  /** Blocks that an earlier run of the job has finished are taken over: the first of what comes is the one behind them. */
  | { phase: 'resume'; block: number; blocks: number }
  /** The calibration text was read and cut into windows. */
  | { phase: 'calibrate'; tokens: number; windows: number; sequenceLength: number }
  /** A window went through a block in full precision, whose layers are measured at every width on the way back. */
  | {
      phase: 'allocate';
      pass: 'forward' | 'backward';
      block: number;
      blocks: number;
      window: number;
      windows: number;
    }
  /** A window's tokens became activations. */
  | { phase: 'embed'; window: number; windows: number }
  /** A window went through a block that will be finetuned, in full precision: what comes out is what the block is tuned to. */
  | { phase: 'target'; block: number; blocks: number; window: number; windows: number }
  /** A window went through a block in fp32; its activations are in the Hessians. A sequential method takes them through once an input. */
  | { phase: 'collect'; block: number; blocks: number; window: number; windows: number }
  /** A transform has changed a block. */
  | { phase: 'transform'; block: number; blocks: number; method: string }
  /** A layer was quantized. */
  | {
      phase: 'quantize';
      block: number;
      blocks: number;
      layer: string;
      index: number;
      layers: number;
      relativeError: number;
      /** Share of the mean diagonal added to the Hessian; null where the method takes none. */
      damping: number | null;
      /** Kinds of what did not go the plain way. */
      warnings: string[];
      /** Spent on this layer, its statistics and packing not counted. */
      seconds: number;
    }
  /** A finetuning method went over all windows; `loss` is the mean squared error of the block's output that it came to. */
  | { phase: 'finetune'; block: number; blocks: number; method: string; epoch: number; epochs: number; loss: number }
  /** A window went through the quantized block. */
  | { phase: 'advance'; block: number; blocks: number; window: number; windows: number }
  /** Everything of a block is on the disk: a run that ends from here on, and is begun again, goes on behind it. */
  | { phase: 'journal'; block: number; blocks: number }
  /** The tensors that stay as they are are being copied and everything is brought to disk. */
  | { phase: 'finish' };

export type ProgressPhase = Progress['phase'];

/** Where a job is, for errors. */
export function placeOf(event: Progress): string {
  if ('layer' in event) return event.layer;
  return 'block' in event ? `block ${event.block}, ${event.phase}` : event.phase;
}
