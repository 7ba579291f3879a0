import type { z } from 'zod';
import type { Tensor } from '../tensor/index.js';

/** The uniform grid of one matrix: `w = scale * (code - zero)` with codes 0 .. 2^bits - 1. */
export interface Grid {
  bits: number;
  /** In-feature columns a scale spans: 16, a multiple of 32, or -1 for the whole row. */
  groupSize: number;
  /** Centred on zero, with nothing stored but the scale. */
  symmetric: boolean;
}

/** Element types that scales are stored in. */
export type ScaleDtype = 'f16' | 'bf16' | 'f32';

/** What a method must be handed besides the weights. The pipeline collects exactly this, once for all who share it. */
export type Need = 'hessian';

/** Statistics of the inputs x [tokens, inFeatures] of a linear layer. */
export interface Statistics {
  /** f64 [inFeatures, inFeatures]: the sum of xᵀx over calibration tokens, up to a positive factor. */
  hessian?: Tensor | undefined;
  /** Tokens in that sum, where they were counted: fewer than columns leave the Hessian singular, which is a warning. */
  tokens?: number | undefined;
}

/** How a pass is to run: under which signal, on how many lanes, and what errors shall name. */
export interface Call {
  signal?: AbortSignal | undefined;
  threads?: number | undefined;
  where: string;
}

/** Something that did not go the plain way. Nothing degrades without one. */
export interface Warning {
  kind: 'dampingRaised' | 'deadColumns' | 'fewTokens' | 'keptRoundToNearest' | 'scaleDtype';
  message: string;
}

export interface SolverInput<Options, Prepared> {
  /** f32 [outFeatures, inFeatures], native memory, finite; not to be written. */
  w: Tensor;
  grid: Grid;
  /** Scales must be representable in this type before they choose codes. */
  scaleDtype: ScaleDtype;
  options: Options;
  prepared: Prepared;
}

export interface Solution {
  /** u8 [outFeatures, inFeatures]. */
  codes: Tensor;
  /** f32 [outFeatures, groups], exactly representable in `scaleDtype`. */
  scales: Tensor;
  /** f32 [outFeatures, groups]: whole codes 0 .. 2^bits - 1. */
  zeros: Tensor;
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
  readonly needs: readonly Need[];
  /** Strict, with a default for every option. */
  readonly options: z.ZodType<Options>;
  prepare(statistics: Statistics, options: Options, call: Call): Promise<Prepared>;
  release(prepared: Prepared): void;
  solve(input: SolverInput<Options, Prepared>, call: Call): Promise<Solution>;
}
