import type { z } from 'zod';
import type { BlockGraph, LinearNode, LlamaConfig, ModelGraph } from '../models/index.js';
import type { Weight } from '../ops/index.js';
import type { Dtype, SubBranch, Tensor } from '../tensor/index.js';
import type { Pair, PairDtype } from './pair.js';

/** How finely one matrix is quantized: codes 0 .. 2^bits - 1, and a few numbers for every group of columns. */
export interface Grid {
  bits: number;
  /** In-feature columns a scale spans: 16, a multiple of 32, or -1 for the whole row. */
  groupSize: number;
  /** Centred on zero, with nothing stored but the scale, or the alphas of planes. */
  symmetric: boolean;
}

/** Element types that scales are stored in. */
export type ScaleDtype = 'f16' | 'bf16' | 'f32';

/**
 * What a group stores beside its codes: a scale and a whole zero code, `w = scale * (code - zero)`; a scale and a real
 * offset, `w = scale * code + offset`; or an alpha for every plane of bits and an offset, `w = sum alpha_b bit_b + offset`.
 */
export type Storage = 'zeroCode' | 'realOffset' | 'planes';

/** The numbers of all groups of a matrix, each exactly representable in the type that it is stored in. f32 tensors. */
export type Values =
  | { storage: 'zeroCode' /** [outFeatures, groups] */; scales: Tensor /** the same; whole codes */; zeros: Tensor }
  | { storage: 'realOffset' /** [outFeatures, groups] */; scales: Tensor /** the same */; offsets: Tensor }
  | {
      storage: 'planes';
      /** [outFeatures, groups, bits]: bit b of a code belongs to alpha b. */
      alphas: Tensor;
      /** [outFeatures, groups]; not read where the grid is symmetric: it is minus half the alphas' sum then. */
      offsets: Tensor;
    };

/** A method as a recipe names it, with every one of its options. */
export interface MethodChoice {
  method: string;
  [option: string]: unknown;
}

/**
 * What a method must be handed besides the weights. The pipeline collects exactly this, once for all who share it:
 * Hessians of the inputs; row Hessians of the query and key projections; a Hessian of its own for each head of the value
 * projection; row Hessians of the value projection.
 */
export type Need = 'hessian' | 'attention' | 'headHessians' | 'valueRows';

/** Statistics of the inputs x [tokens, inFeatures] of a linear layer. */
export interface Statistics {
  /**
   * f64 [inFeatures, inFeatures]: the sum of xᵀx over calibration tokens, up to a positive factor. Its upper triangle alone is
   * read, and may be packed: the rows of it one behind the other, f64 [inFeatures · (inFeatures + 1) / 2]. f64 [heads,
   * inFeatures, inFeatures] where every head of outFeatures / heads rows has inputs of its own, each a matrix by itself then.
   */
  hessian?: Tensor | undefined;
  /**
   * f64 [heads, d, d], outFeatures = heads · d: how errors in the rows of a head weigh together, the G of
   * tr(G ΔW H ΔWᵀ), up to a positive factor a head. Only methods that ask for it read it.
   */
  rowHessian?: Tensor | undefined;
  /** Tokens in that sum, where they were counted: fewer than columns leave the Hessian singular, which is a warning. */
  tokens?: number | undefined;
}

/** How a pass is to run: under which signal, on how many lanes, and what errors shall name. */
export interface Call {
  signal?: AbortSignal | undefined;
  threads?: number | undefined;
  where: string;
  /** Whose rows alone the matrix is, where it is one head's of a layer. */
  head?: number | undefined;
}

/**
 * What solving and measuring a matrix takes at most beside its weights and the Hessian of its inputs: bytes a weight, and
 * packed f64 triangles of the Hessian's size. A job's memory is planned with it.
 */
export interface SolverWork {
  perWeight: number;
  hessians: number;
}

/** More than any method takes. */
export const unmeasuredWork: SolverWork = { perWeight: 24, hessians: 2 };

/** Something that did not go the plain way. Nothing degrades without one. */
export interface Warning {
  kind:
    | 'dampingRaised'
    | 'deadColumns'
    | 'fewTokens'
    | 'keptRoundToNearest'
    | 'pairDropped'
    | 'rowHessianUnused'
    | 'scaleDtype';
  message: string;
}

export interface SolverInput<Options, Prepared> {
  /** f32 [outFeatures, inFeatures], native memory, finite; not to be written. */
  w: Tensor;
  grid: Grid;
  /** Scales, alphas and real offsets must be representable in this type before they choose codes. */
  scaleDtype: ScaleDtype;
  options: Options;
  prepared: Prepared;
  /** f64 [heads, d, d] of the statistics, for methods that weigh errors of rows together. */
  rowHessian?: Tensor | undefined;
}

export interface Solution {
  /** u8 [outFeatures, inFeatures]. */
  codes: Tensor;
  values: Values;
  /** Damping used, as a share of the mean diagonal; null where the method has none. */
  damping: number | null;
  deadColumns: number;
  warnings: Warning[];
}

/**
 * A solver: the options it takes, what it needs, and the steps. A new one is a file in solvers/ that exports this object and
 * a line in registry.ts. `Prepared` is what follows from the statistics and the options alone: the pipeline makes it once
 * for all matrices that read the same input, and releases it after the last.
 */
export interface Solver<Options = unknown, Prepared = unknown> {
  readonly name: string;
  readonly scope: 'matrix';
  /** How its results are stored: the checkpoint is laid out before the first matrix is solved. */
  readonly storage: Storage;
  /** Absent: `unmeasuredWork`. */
  work?(options: Options): SolverWork;
  /** Whether it can solve for a symmetric grid. */
  readonly symmetric: boolean;
  needs(options: Options): readonly Need[];
  /**
   * Whether the Hessian of a layer's inputs is to be that of the block with all its earlier layers quantized already, collected
   * anew for every input; else all of a block's Hessians come from one pass. Absent: never.
   */
  sequential?(options: Options): boolean;
  /** Strict, with a default for every option. */
  readonly options: z.ZodType<Options>;
  prepare(statistics: Statistics, options: Options, call: Call): Promise<Prepared>;
  release(prepared: Prepared): void;
  solve(input: SolverInput<Options, Prepared>, call: Call): Promise<Solution>;
}

/** A matrix to be approximated by a quantized one and a low-rank pair. */
export interface LowRankInput<Options> {
  /** f32 [outFeatures, inFeatures], native memory, finite; not to be written. */
  w: Tensor;
  grid: Grid;
  scaleDtype: ScaleDtype;
  options: Options;
  /** Of the inputs: looked through, and not of zeros alone. Where the method needs it. */
  hessian: Tensor | undefined;
  /** What the recipe's solver makes of w alone; not to be written nor disposed. */
  plain: Solution;
  /** The recipe's solver on another matrix of the same shape and inputs. */
  solve(w: Tensor): Promise<Solution>;
}

export interface LowRankResult {
  /** May be `plain` itself. */
  solution: Solution;
  /** Before it is rounded to its storage type; the solution is for the rounded one. */
  pair: Pair;
  /** Rounds or steps that were taken, and the one that the result is of: counted from 1, a start from 0. */
  steps: number;
  best: number;
}

/**
 * A low-rank method: chooses the pair B · A beside the codes, w ~ Q(…) + B · A. A new one is a file in low-rank/ and a line in
 * registry.ts.
 */
export interface LowRank<Options = unknown> {
  readonly name: string;
  readonly options: z.ZodType<Options>;
  needs(options: Options): readonly Need[];
  /** How every pair will be stored: the checkpoint is laid out before the first matrix is solved. */
  stored(options: Options): { rank: number; dtype: PairDtype };
  /** @throws `LUTRA_E_OPTION` where the solver cannot be its quantizer */
  checkSolver(solver: Solver, options: MethodChoice): void;
  fit(input: LowRankInput<Options>, call: Call): Promise<LowRankResult>;
}

/**
 * One linear layer of a block as its solver left it. Values may be changed in place, and become another kind of values on the
 * same tensors; codes may not.
 */
export interface SolvedLayer {
  readonly node: LinearNode;
  readonly grid: Grid;
  readonly scaleDtype: ScaleDtype;
  readonly codes: Tensor;
  values: Values;
  readonly subBranch: SubBranch | null;
}

/** What enters a block of the quantized model and what its original makes of that: f32 [sequenceLength, hiddenSize] a window. */
export interface BlockWindows {
  readonly count: number;
  readonly sequenceLength: number;
  input(window: number, hidden: Tensor): Promise<void>;
  target(window: number, hidden: Tensor): Promise<void>;
}

export interface FinetuneInput<Options> {
  config: LlamaConfig;
  block: BlockGraph;
  /** The block's tensors; norms may be changed in place where the method `trains` them. */
  weights: ReadonlyMap<string, Weight>;
  /** The type in which a tensor of the block is stored. */
  dtype(name: string): Dtype;
  layers: readonly SolvedLayer[];
  windows: BlockWindows;
  options: Options;
  /** To be called after every pass over the windows, with the loss that it led to. */
  onEpoch(event: { epoch: number; epochs: number; loss: number }): void;
}

/** What finetuning did to one block: mean squared error of its output, over windows, tokens and channels. */
export interface FinetuneReport {
  lossBefore: number;
  lossAfter: number;
}

/** A finetuning method: changes the numbers of a block's groups, and its norms, with codes frozen. A file in finetune/. */
export interface Finetune<Options = unknown> {
  readonly name: string;
  readonly options: z.ZodType<Options>;
  /** How the values of a solver that stores them as `storage` are stored after this. @throws `LUTRA_E_OPTION` where it cannot change them */
  storageAfter(storage: Storage): Storage;
  /** Names of the block's tensors, besides the linear layers, that it changes. */
  trains(options: Options, block: BlockGraph): readonly string[];
  run(input: FinetuneInput<Options>, call: Call): Promise<FinetuneReport>;
}

/** The tensors of a model by name, each made or read when it is asked for. */
export interface TensorSource {
  readonly graph: ModelGraph;
  /** Norms, biases, embeddings and output layers that are others than the checkpoint's, or new. */
  readonly changed: ReadonlySet<string>;
  /** Element type that a tensor is stored in. */
  dtype(name: string): Dtype;
  /** Linear layers of blocks in any type, everything else in the type that it is stored in. The caller's to dispose. */
  load(name: string, call: Omit<Call, 'where'>): Promise<Tensor>;
}

/**
 * A transform changes weights so that the network computes the same and quantization hurts less. A file in transforms/ and a
 * line in registry.ts. One of scope `model` makes every tensor of another model out of the source's, one by one.
 */
export interface ModelTransform<Options = unknown> {
  readonly name: string;
  readonly scope: 'model';
  readonly options: z.ZodType<Options>;
  /** @throws `LUTRA_E_UNSUPPORTED_MODEL` for a model that it cannot transform */
  apply(source: TensorSource, options: Options): TensorSource;
}

/** What a block's linear layers read in some of the calibration windows. The caller's to dispose. */
export interface BlockSample {
  /** By tap id: f32 [sequences * sequenceLength, inFeatures], sequence after sequence. */
  readonly inputs: ReadonlyMap<string, Tensor>;
  readonly sequenceLength: number;
  [Symbol.dispose](): void;
}

export interface BlockTransformInput<Options> {
  config: LlamaConfig;
  block: BlockGraph;
  /** The block's tensors: norms as they are stored, biases in f32. What is replaced is disposed by who replaces it. */
  weights: Map<string, Weight>;
  /** Element type that a tensor is stored in: changed norms and biases are rounded to it. */
  dtype(name: string): Dtype;
  grid(name: string): Grid;
  /** How the layers' values are going to be stored. Their `chooseScaleDtype` must stay what it is. */
  storage: Storage;
  options: Options;
  /** Inputs for about so many tokens: whole windows, spread evenly over all of them. */
  sample(tokens: number): Promise<BlockSample>;
}

/** A transform of scope `block` works on the weights of one block, with its inputs, before the block is quantized. */
export interface BlockTransform<Options = unknown> {
  readonly name: string;
  readonly scope: 'block';
  readonly options: z.ZodType<Options>;
  /** Names of the block's norms and biases that it changes. */
  changes(options: Options, config: LlamaConfig, block: BlockGraph): readonly string[];
  /** @returns what the manifest tells of the block, beside its number and the method. */
  run(input: BlockTransformInput<Options>, call: Call): Promise<Record<string, unknown>>;
}

export type Transform = ModelTransform | BlockTransform;
