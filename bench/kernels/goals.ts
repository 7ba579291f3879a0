/** What the kernels are to reach, as ratios within one run. Groups of 128 columns, scales and offsets in f16. */
import { type BenchCase, caseName, parseShape, type Shape } from '../../lib/benchmark/index.js';
import type { OnnxKernel } from '../peers/onnxruntime.js';
import type { DenseCase } from './dense.js';

export interface Goal {
  /** The cases, for example `ort/4096x4096/W2/fast/hot/n1/t2`. */
  name: string;
  ours: BenchCase | DenseCase;
  against: Opponent;
  /** What the ratio must reach or stay within; null where it is only to be known. */
  bound: Bound | null;
}

export type Opponent =
  /** The ratio is the share of the memory's bandwidth. */
  | { kind: 'memory' }
  /** The ratio is the time of the fastest of these kernels of ONNX Runtime over ours. */
  | { kind: 'ort'; bits: number; kernels: readonly OnnxKernel[] }
  /** The ratio is our time over that of another of our own cases. */
  | { kind: 'own'; other: BenchCase }
  /**
   * Three products with one x, its activations prepared once: the ratio is our time over that of three calls. The same
   * matrices stacked to one stand beside them.
   */
  | { kind: 'apart' }
  /** The ratio is the share of the fp32 multiply-add peak. */
  | { kind: 'peak' };
export type Bound = { atLeast: number } | { atMost: number };

const shape = (name: string) => parseShape(name) as Shape;
const square = shape('4096x4096');
const coldShapes = [square, shape('11008x4096'), shape('14336x4096')];
const usual: BenchCase = {
  shape: square,
  kind: 'uniform',
  bits: 2,
  groupSize: 128,
  rank: 0,
  mode: 'fast',
  tokens: 1,
  threads: 1,
  caches: 'hot',
  batchInvariant: false,
};

const againstMemory = (ours: BenchCase, atLeast: number): Goal => ({
  name: `memory/${caseName(ours)}`,
  ours,
  against: { kind: 'memory' },
  bound: { atLeast },
});
const againstOrt = (ours: BenchCase, bits: number, kernels: readonly OnnxKernel[], atLeast: number): Goal => ({
  name: `ort/${caseName(ours)}`,
  ours,
  against: { kind: 'ort', bits, kernels },
  bound: { atLeast },
});
const againstOwn = (topic: string, ours: BenchCase, other: BenchCase, atMost: number | null): Goal => ({
  name: `${topic}/${caseName(ours)}`,
  ours,
  against: { kind: 'own', other },
  bound: atMost === null ? null : { atMost },
});

const bothThreads = [1, 2];

/** One token out of memory, against what memory gives. */
const coldGoals = coldShapes.flatMap((shape) =>
  ([2, 3, 4] as const).flatMap((bits) => {
    const ours: BenchCase = { ...usual, shape, bits, mode: 'accurate', caches: 'cold' };
    const share = { 2: 0.8, 3: 0.85, 4: 0.9 }[bits];
    const goals = [againstMemory(ours, share), againstMemory({ ...ours, threads: 2 }, 0.9)];
    return bits === 2 ? [...goals, againstOrt({ ...ours, mode: 'fast' }, 2, ['int8'], 1.4)] : goals;
  }),
);

/** Products out of warm caches, against ONNX Runtime. */
const ortGoals = [
  againstOrt({ ...usual, threads: 2 }, 2, ['int8'], 2.5),
  againstOrt({ ...usual, threads: 2, mode: 'accurate' }, 2, ['int8'], 1.6),
  ...bothThreads.flatMap((threads) => [
    againstOrt({ ...usual, threads, mode: 'exact' }, 4, ['fp32'], 3.5),
    againstOrt({ ...usual, threads, tokens: 8 }, 2, ['int8', 'lookUp'], 3),
    againstOrt({ ...usual, threads, tokens: 128 }, 2, ['int8', 'lookUp'], 2),
    againstOrt({ ...usual, threads, tokens: 128, bits: 4 }, 4, ['int8', 'fp32'], 1.5),
    againstOrt({ ...usual, threads, tokens: 128, bits: 4, mode: 'accurate' }, 4, ['fp32'], 2),
  ]),
];

/** 3 bits against 4: fewer bits must not cost time. */
const widthGoals = bothThreads.flatMap((threads) => {
  const compare = (ours: BenchCase, atMost: number) => againstOwn('w3-w4', ours, { ...ours, bits: 4 }, atMost);
  const three: BenchCase = { ...usual, threads, bits: 3 };
  return [
    compare({ ...three, mode: 'fast' }, 1),
    compare({ ...three, mode: 'accurate' }, 1),
    ...(['fast', 'accurate', 'exact'] as const).map((mode) => compare({ ...three, mode, caches: 'cold' }, 0.85)),
    ...[8, 32, 128].map((tokens) => compare({ ...three, mode: 'exact', tokens }, 1.15)),
  ];
});

/** Binary codes with three planes against uniform weights of the same width. */
const planesGoals = bothThreads.flatMap((threads) =>
  [
    { ...usual, threads, caches: 'cold' as const },
    { ...usual, threads },
    { ...usual, threads, tokens: 8 },
    { ...usual, threads, tokens: 128 },
  ].map((one) => againstOwn('bcq', { ...one, bits: 3, kind: 'planes' }, { ...one, bits: 3 }, 1.3)),
);

/** Rank 64 beside W3: no more extra time than extra bytes, and 5 %. */
const extraBytes = (2 * 64 * (square.rows + square.cols)) / (square.rows * square.cols * (3 / 8 + 4 / 128));
const subBranchGoals = bothThreads.flatMap((threads) =>
  (['cold', 'hot'] as const).flatMap((caches) =>
    (['fast', 'accurate'] as const).map((mode) => {
      const plain: BenchCase = { ...usual, threads, caches, mode, bits: 3 };
      return againstOwn('rank', { ...plain, rank: 64 }, plain, 1.05 + extraBytes);
    }),
  ),
);

const denseGoals = (['gemm', 'syrk'] as const).map(
  (op): Goal => ({
    name: `peak/${op}-2048/t2`,
    ours: { op, size: 2048, threads: 2 },
    against: { kind: 'peak' },
    bound: { atLeast: 0.7 },
  }),
);

/** What the same bits for every batch cost, and what the first call costs after the lanes fell asleep. */
const costs = bothThreads.flatMap((threads) => [
  ...[1, 8, 128].map((tokens) => {
    const one: BenchCase = { ...usual, threads, tokens, mode: 'accurate' };
    return againstOwn('invariant', { ...one, batchInvariant: true }, one, null);
  }),
  againstOwn('idle', { ...usual, threads, caches: 'idle' }, { ...usual, threads }, null),
]);

/** As q, k and v share their input. */
const sharedGoals = bothThreads.flatMap((threads) =>
  [1, 8].map((tokens): Goal => {
    const ours: BenchCase = { ...usual, shape: shape('1024x4096'), threads, tokens, mode: 'accurate' };
    return { name: `shared/${caseName(ours)}`, ours, against: { kind: 'apart' }, bound: null };
  }),
);

export const goals: readonly Goal[] = [
  ...coldGoals,
  ...ortGoals,
  ...widthGoals,
  ...planesGoals,
  ...subBranchGoals,
  ...denseGoals,
  ...costs,
  ...sharedGoals,
];
