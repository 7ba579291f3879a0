import type { CorpusSource } from '../calibration/index.js';
import type { FinetuneReport, Grid, LayerReport, Recipe, RecipeInput } from '../quantization/index.js';
import type { QuantizedTensor, Tensor } from '../tensor/index.js';
import type { Progress } from './progress.js';

/** What calibration reads; needed by methods that ask for statistics, and not read for the others. */
export type CalibrationJob = CorpusSource & {
  /** Number of windows, 128 by default. */
  samples?: number | undefined;
  /** Tokens of a window; the smaller of 2,048 and the model's context by default. */
  sequenceLength?: number | undefined;
  /**
   * Windows besides, without a token of the others, that only measure: `calibrationError` and `heldOutError` of every layer, for
   * methods that need no text, too. None by default. Each block is computed once more for it.
   */
  heldOut?: number | undefined;
  /** Draws the windows; 0 by default. */
  seed?: number | undefined;
  /** Windows that may be left out because activations in them are NaN or infinite, on record; 0 by default. */
  maxBadWindows?: number | undefined;
};

export interface QuantizationJob {
  /** Directory of a Hugging Face checkpoint. */
  model: string;
  /** Directory to be made. */
  out: string;
  recipe: RecipeInput | Recipe;
  calibration?: CalibrationJob | undefined;
  /** Replaces an existing output directory, when everything else has succeeded. */
  overwrite?: boolean | undefined;
  /**
   * Whether the work of an earlier run of the same job, one that failed, was aborted or was killed, is gone on with; it is by
   * default. False starts afresh, and removes that work first. A run that ends leaves `<out>.partial` once a block is finished.
   */
  resume?: boolean | undefined;
  /** What errors say behind "2 of 4 blocks are kept"; by default, to call quantizeModel again with the same job. */
  resumeHint?: string | undefined;
  /** Fails with `LUTRA_E_STRICT` on the first warning of a layer, instead of recording it. */
  strict?: boolean | undefined;
  /** Lanes to use at most; the whole pool by default. Never changes the output. */
  threads?: number | undefined;
  /**
   * The most memory that the process may hold: the job is refused where its plan needs more, and ends with `LUTRA_E_MEMORY` where
   * it comes to hold more.
   */
  maxMemoryBytes?: number | undefined;
  signal?: AbortSignal | undefined;
  /** Called with every step; never after the job has settled. */
  onProgress?: ((event: Progress) => void) | undefined;
  /** Called, and awaited, with every layer that is written in this run; not with those that are taken over. */
  onLayer?: ((layer: QuantizedLayer) => Promise<void> | void) | undefined;
  /** Bytes that a shard may hold, 5 GB by default. */
  shardBytes?: number | undefined;
  /** Ends the job with `LUTRA_E_INPUT_CHANGED` before the long work where what it reads is something else; see `recordedJob`. */
  expected?: ExpectedInputs | undefined;
}

/** The keys of a job: others would have no effect. */
export const jobKeys: Readonly<Record<keyof QuantizationJob, true>> = {
  ...{ model: true, out: true, recipe: true, calibration: true, expected: true, shardBytes: true },
  ...{ overwrite: true, resume: true, resumeHint: true, strict: true, threads: true, maxMemoryBytes: true },
  ...{ signal: true, onProgress: true, onLayer: true },
};
export const calibrationKeys: Readonly<Record<keyof CalibrationJob, true>> = {
  ...{ file: true, texts: true, separator: true, samples: true, sequenceLength: true },
  ...{ heldOut: true, seed: true, maxBadWindows: true },
};

/** What a manifest says of the files that its job read. */
export interface ExpectedInputs {
  /** SHA-256 of every file of the model that counts, by its name. */
  inputs: Readonly<Record<string, string>>;
  /** SHA-256 of the calibration text; null where none was read. */
  calibration: string | null;
}

/** A layer's weights before and after. Both tensors are valid until the call that is handed them has ended. */
export interface QuantizedLayer {
  name: string;
  /** f32, f16 or bf16 [outFeatures, inFeatures]: the weights as the solver was given them, transformed where the recipe says so. */
  original: Tensor;
  packed: QuantizedTensor;
}

/** What became of one linear layer when it was solved; finetuning changes its values later. */
export interface LayerResult extends LayerReport, Grid {
  name: string;
  /** Calibration tokens in its Hessian; null where the method takes none. */
  tokens: number | null;
  /**
   * tr((W − Ŵ) H (W − Ŵ)ᵀ) / tr(W H Wᵀ) of the weights as they are stored, H of the calibration windows' inputs before the block
   * was quantized. Null unless windows are held out.
   */
  calibrationError: number | null;
  /** The same with H of the windows that are held out: what is above `calibrationError` is fitted to the calibration. */
  heldOutError: number | null;
}

/** What a transform did to one block. */
export interface TransformResult {
  block: number;
  method: string;
  /** What the method tells of it; docs/recipes.md says what. */
  [what: string]: unknown;
}

/** What a finetuning method did to one block. */
export interface FinetuneResult extends FinetuneReport {
  /** From 0. */
  block: number;
  method: string;
}

/** A window that is left out from a block on, because activations are NaN or infinite there. Both from 0. */
export interface BadWindow {
  block: number;
  window: number;
}

/** What became of every part of the model. */
export type JobResults = Pick<QuantizationResult, 'layers' | 'transforms' | 'finetune' | 'badWindows'>;

export interface QuantizationResult {
  out: string;
  /** Bytes of all tensors as they are stored. */
  bytes: number;
  bitsPerWeight: number;
  bitsPerParameter: number;
  seconds: number;
  /** Largest resident memory of this process so far. */
  peakRssBytes: number;
  /** Blocks that were taken over from an earlier run of the job. */
  resumedBlocks: number;
  layers: LayerResult[];
  /** Of every block in turn; empty where the recipe has no transform of blocks. */
  transforms: TransformResult[];
  /** Of every block in turn; empty where the recipe has no finetuning. */
  finetune: FinetuneResult[];
  /** Calibration windows that were left out, in the order in which that was found. */
  badWindows: BadWindow[];
  /** What the plan has told and was no reason to refuse, such as a text too short for so many windows. */
  notes: string[];
  /** How often each kind of warning was recorded, `badWindow` for windows that were left out; empty where all went the plain way. */
  warnings: Record<string, number>;
}
