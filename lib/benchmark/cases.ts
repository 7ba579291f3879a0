import type { Mode } from '../ops/index.js';
import { checkLayout, type QuantizedLayout } from '../tensor/index.js';
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
  mode: Mode;
  tokens: number;
  threads: number;
  caches: CacheState;
  batchInvariant: boolean;
}

/** Lists of what to time; every combination is a case. */
export type BenchPlan = { [Field in keyof BenchCase as `${Field}s`]: readonly BenchCase[Field][] };

/** All combinations, ordered so that cases with the same weights follow each other. */
export function expand(plan: BenchPlan): BenchCase[] {
  let cases: Partial<BenchCase>[] = [{}];
  const fields = [
    'shape',
    'groupSize',
    'kind',
    'bits',
    'caches',
    'tokens',
    'threads',
    'mode',
    'batchInvariant',
  ] as const;
  for (const field of fields)
    cases = cases.flatMap((known) => plan[`${field}s`].map((value) => ({ ...known, [field]: value })));
  return cases as BenchCase[];
}

/**
 * The weights of a case as they are stored: scales and offsets in f16.
 *
 * @throws what `checkLayout` does, where lutra has no such weights
 */
export function layoutOf({ shape, kind, bits, groupSize }: BenchCase): QuantizedLayout {
  const layout = { ...shape, kind, bits, groupSize, offsets: 'real' } as const;
  checkLayout(layout, 'benchmark');
  return layout;
}

/** W3, or BCQ3 for binary codes with an alpha for every plane. */
export const weightsName = ({ kind, bits }: Pick<BenchCase, 'kind' | 'bits'>): string =>
  `${kind === 'planes' ? 'BCQ' : 'W'}${bits}`;

/** The mode, and whether its bits are independent of the batch. */
export const modeName = ({ mode, batchInvariant }: Pick<BenchCase, 'mode' | 'batchInvariant'>): string =>
  batchInvariant ? `${mode}-invariant` : mode;

/** For example `4096x4096/W2/fast/hot/n1/t2`: tokens after n, threads after t. */
export const caseName = (one: BenchCase): string =>
  [shapeName(one.shape), weightsName(one), modeName(one), one.caches, `n${one.tokens}`, `t${one.threads}`].join('/');
