import { dtypeIds } from '../native/index.js';
import { Program } from '../ops/index.js';
import { rankOf, type SubBranch, subBranchTensors, Tensor } from '../tensor/index.js';
import type { Call, Grid, ScaleDtype } from './method.js';
import { disposeOnFailure, groupColumns, runOptions, task } from './passes.js';

/** Element types of a stored pair; i8 has a scale for every row of either matrix. */
export type PairDtype = 'f16' | 'bf16' | 'i8';

/** A low-rank pair while it is being chosen: f32 b [outFeatures, rank] and a [rank, inFeatures], in native memory. */
export class Pair {
  private constructor(
    readonly b: Tensor,
    readonly a: Tensor,
  ) {}

  /** A pair of zeros for matrices of this shape. */
  static zeros([m = 0, k = 0]: readonly number[], rank: number): Pair {
    return new Pair(Tensor.zeros('f32', [m, rank]), Tensor.zeros('f32', [rank, k]));
  }

  get rank(): number {
    return this.a.shape[0] ?? 0;
  }

  dispose(): void {
    this.b.dispose();
    this.a.dispose();
  }
  [Symbol.dispose](): void {
    this.dispose();
  }
}

/**
 * Makes b · a the matrix of its rank that lies nearest to x f32 [m, k]: in the metric of a Hessian, or in the plain
 * one. The search starts from what b holds, where that is not zeros.
 */
export async function fitPair(x: Tensor, metric: Tensor | undefined, { b, a }: Pair, call: Call): Promise<void> {
  if (metric) await task('lowRankFitInMetric', [x, metric, b, a], [], call);
  else await task('lowRankFit', [x, b, a], [], call);
}

/** The pair with the numbers that its storage type has. @throws `LUTRA_E_OPTION` where it has none so large */
export async function roundPair({ b, a, rank }: Pair, dtype: PairDtype, call: Call): Promise<Pair> {
  const rounded = Pair.zeros([b.shape[0] ?? 0, a.shape[1] ?? 0], rank);
  return await disposeOnFailure([rounded.b, rounded.a], async () => {
    await task('roundRows', [b, rounded.b], [dtypeIds[dtype]], call);
    await task('roundRows', [a, rounded.a], [dtypeIds[dtype]], call);
    return rounded;
  });
}

/** w - b · a, f32. */
export async function withoutPair(w: Tensor, { b, a }: Pair, call: Call): Promise<Tensor> {
  const rest = Tensor.zeros('f32', w.shape);
  await disposeOnFailure([rest], () => task('subtractPair', [w, b, a, rest], [], call));
  return rest;
}

/** The pair as it is stored: `roundPair` gives the same numbers. */
export async function storePair({ b, a }: Pair, dtype: PairDtype, call: Call): Promise<SubBranch> {
  const rows = await storeRows(b, dtype, call);
  const made = [rows.values, ...(rows.scales ? [rows.scales] : [])];
  const columns = await disposeOnFailure(made, () => storeRows(a, dtype, call));
  return { a: columns.values, b: rows.values, aScales: columns.scales, bScales: rows.scales };
}

async function storeRows(x: Tensor, dtype: PairDtype, call: Call): Promise<{ values: Tensor; scales: Tensor | null }> {
  const values = Tensor.zeros(dtype, x.shape);
  const scales = dtype === 'i8' ? Tensor.zeros('f32', [x.shape[0] ?? 0]) : null;
  await disposeOnFailure(scales ? [values, scales] : [values], async () => {
    if (scales) await task('storeRowsInt8', [x, values, scales], [], call);
    else {
      using program = new Program().convert(x, values);
      await program.runAsync(runOptions(call));
    }
  });
  return { values, scales };
}

/** The numbers that a stored pair stands for: `roundPair`'s. */
export async function widenPair(pair: SubBranch, call: Call): Promise<Pair> {
  const wide = Pair.zeros([pair.b.shape[0] ?? 0, pair.a.shape[1] ?? 0], rankOf(pair));
  await disposeOnFailure([wide.b, wide.a], async () => {
    await widenRows(pair.b, pair.bScales, wide.b, call);
    await widenRows(pair.a, pair.aScales, wide.a, call);
  });
  return wide;
}

async function widenRows(x: Tensor, scales: Tensor | null, y: Tensor, call: Call): Promise<void> {
  if (scales) {
    const columns = x.shape[1] ?? 1;
    const factors = scales.read();
    y.write(Float32Array.from(x.read(), (code, i) => Math.fround(code * factors[Math.floor(i / columns)]!)));
  } else {
    using program = new Program().convert(x, y);
    await program.runAsync(runOptions(call));
  }
}

/** A second owner's copy. */
export function copyPair(pair: SubBranch): SubBranch {
  const made: Tensor[] = [];
  const copy = (x: Tensor) => {
    const copied = Tensor.copyOf(x.read(), x.shape, x.dtype);
    made.push(copied);
    return copied;
  };
  const { a, b, aScales, bScales } = pair;
  return { a: copy(a), b: copy(b), aScales: aScales && copy(aScales), bScales: bScales && copy(bScales) };
}

export function disposePair(pair: SubBranch): void {
  for (const tensor of subBranchTensors(pair)) tensor.dispose();
}

export interface FbquantDescent {
  grid: Grid;
  scaleDtype: ScaleDtype;
  storage: PairDtype;
  steps: number;
  rate: number;
  /** Starts from b = 0 and a random a, whatever the pair holds. */
  random: boolean;
}

/** FBQuant's descent, over the pair in place. `best` of `steps` taken gave what the pair holds now. */
export async function fbquantDescend(
  w: Tensor,
  hessian: Tensor,
  { b, a }: Pair,
  { grid, scaleDtype, storage, steps, rate, random }: FbquantDescent,
  call: Call,
): Promise<{ best: number; steps: number }> {
  const numbers = [grid.bits, groupColumns(grid, w.shape[1] ?? 0), Number(grid.symmetric), dtypeIds[scaleDtype]];
  numbers.push(dtypeIds[storage], steps, rate, Number(random));
  const [, , best = 0, taken = 0] = await task('fbquantDescend', [w, hessian, b, a], numbers, call);
  return { best, steps: taken };
}
