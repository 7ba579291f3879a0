import type { Mode } from '../ops/index.js';
import { checkLayout, checkRank, type QuantizedLayout } from '../tensor/index.js';
import { type Shape, shapeName } from './shapes.js';

/**
 * Where a call finds its weights: `hot` in the caches, the same matrix every time; `cold` in memory, rotating over more
 * matrices than caches hold; `idle` as hot, but after a pause in which the lanes of the pool fell asleep.
 */
export const cacheStates = ['hot', 'cold', 'idle'] as const;
export type CacheState = (typeof cacheStates)[number];

/** One product to be timed. */
export interface BenchCase {
  shape: Shape;
  kind: QuantizedLayout['kind'];
  bits: number;
  groupSize: number;
  /** Of the sub-branch; 0 for none. */
  rank: number;
  mode: Mode;
  tokens: number;
  threads: number;
  caches: CacheState;
  batchInvariant: boolean;
}

/** Lists of what to time; every combination is a case. */
export interface BenchPlan {
  shapes: readonly Shape[];
  kinds: readonly BenchCase['kind'][];
  bits: readonly number[];
  groupSizes: readonly number[];
  ranks: readonly number[];
  modes: readonly Mode[];
  tokens: readonly number[];
  threads: readonly number[];
  caches: readonly CacheState[];
  batchInvariant: boolean;
}

/** All combinations, ordered so that cases with the same weights follow each other. */
export function expand(plan: BenchPlan): BenchCase[] {
  const { batchInvariant } = plan;
  return combinations({
    shape: plan.shapes,
    groupSize: plan.groupSizes,
    kind: plan.kinds,
    bits: plan.bits,
    rank: plan.ranks,
    caches: plan.caches,
    tokens: plan.tokens,
    threads: plan.threads,
    mode: plan.modes,
  }).map((one) => ({ ...one, batchInvariant }));
}

/** One of every list, the last list changing fastest. */
function combinations<Fields extends object>(lists: { [Name in keyof Fields]: readonly Fields[Name][] }): Fields[] {
  const names = Object.keys(lists) as (keyof Fields)[];
  return names.reduce<Fields[]>(
    (known, name) => known.flatMap((fields) => lists[name].map((value) => ({ ...fields, [name]: value }))),
    [{} as Fields],
  );
}

/**
 * The weights of a case as they are stored: scales, offsets and sub-branch in f16.
 *
 * @throws what `checkLayout` and `checkRank` do, where lutra has no such weights
 */
export function layoutOf({ shape, kind, bits, groupSize, rank }: BenchCase): QuantizedLayout {
  const layout = { ...shape, kind, bits, groupSize, offsets: 'real' } as const;
  checkLayout(layout, 'benchmark');
  if (rank) checkRank(rank, shape.rows, shape.cols, 'benchmark');
  return layout;
}

/** W3, or BCQ3 for binary codes with an alpha for every plane; W3r64 with a sub-branch of rank 64. */
export const weightsName = ({ kind, bits, rank }: Pick<BenchCase, 'kind' | 'bits' | 'rank'>): string =>
  `${kind === 'planes' ? 'BCQ' : 'W'}${bits}${rank ? `r${rank}` : ''}`;

/** The mode, and whether its bits are independent of the batch. */
export const modeName = ({ mode, batchInvariant }: Pick<BenchCase, 'mode' | 'batchInvariant'>): string =>
  batchInvariant ? `${mode}-invariant` : mode;

/** For example `4096x4096/W2/fast/hot/n1/t2`: tokens after n, threads after t. */
export const caseName = (one: BenchCase): string =>
  [shapeName(one.shape), weightsName(one), modeName(one), one.caches, `n${one.tokens}`, `t${one.threads}`].join('/');
