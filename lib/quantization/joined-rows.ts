import { Tensor } from '../tensor/index.js';
import type { Call, ScaleDtype, Solution, Statistics, Values, Warning } from './method.js';
import { valuesOf } from './passes.js';
import { copyRows } from './row-passes.js';
import type { SolvedMatrix } from './solve-matrix.js';

/** The statistics of one head's rows: its inputs' Hessian, row Hessian f64 [1, d, d]. */
export interface HeadStatistics extends Statistics {
  heads: number;
}

/** Head by head of statistics that are given for all of them; views on the same memory. */
export async function* eachHead({ hessian, rowHessian, tokens }: Statistics): AsyncGenerator<HeadStatistics> {
  const [heads = 0, k = 0] = hessian?.shape ?? [];
  for (let head = 0; hessian && head < heads; head++) {
    using one = hessian.rows(head, head + 1);
    using square = one.reshape([k, k]);
    using rows = rowHessian?.rows(head, head + 1);
    yield { hessian: square, rowHessian: rows, tokens, heads };
  }
}

/** Solutions of consecutive rows as one. */
export class JoinedRows {
  rows = 0;
  readonly #codes: Tensor;
  #values: Values | null = null;
  readonly #parts: SolvedMatrix[] = [];

  constructor(private readonly shape: readonly number[]) {
    this.#codes = Tensor.zeros('u8', shape);
  }

  async append(solved: SolvedMatrix, call: Call): Promise<void> {
    const { codes, values } = solved.solution;
    this.#values ??= this.#emptyLike(values);
    const end = this.rows + (codes.shape[0] ?? 0);
    const targets = [this.#codes, ...valuesOf(this.#values)];
    for (const [i, tensor] of [codes, ...valuesOf(values)].entries()) {
      using target = targets[i]!.rows(this.rows, end);
      await copyRows(target, tensor, call);
    }
    this.rows = end;
    this.#parts.push(solved);
  }

  result(scaleDtype: ScaleDtype, before: readonly Warning[]): Omit<SolvedMatrix, 'grid' | 'scaleDtype'> {
    const reports = this.#parts.map(({ report }) => report);
    const energy = this.#parts.reduce((sum, part) => sum + part.energy, 0);
    const relative = (key: 'relativeError' | 'rtnError') =>
      energy === 0 ? 0 : this.#parts.reduce((sum, part) => sum + part.energy * part.report[key], 0) / energy;
    const dampings = reports.flatMap(({ damping }) => damping ?? []);
    const damping = dampings.length ? Math.max(...dampings) : null;
    const deadColumns = Math.max(...reports.map((report) => report.deadColumns));
    // Heads read the same inputs: most of what one warns of, all do.
    const said = reports.flatMap((report) => report.warnings);
    const own = said.filter((one, at) => said.findIndex(({ message }) => message === one.message) === at);
    const solution: Solution = { codes: this.#codes, values: this.#values!, damping, deadColumns, warnings: own };
    const errors = { relativeError: relative('relativeError'), rtnError: relative('rtnError') };
    const report = { ...errors, damping, deadColumns, scaleDtype, lowRank: null, warnings: [...before, ...own] };
    return { solution, subBranch: null, report, energy };
  }

  dispose(): void {
    this.#codes.dispose();
    if (this.#values) for (const tensor of valuesOf(this.#values)) tensor.dispose();
  }

  #emptyLike(values: Values): Values {
    const like = (tensor: Tensor) => Tensor.zeros(tensor.dtype, [this.shape[0] ?? 0, ...tensor.shape.slice(1)]);
    if (values.storage === 'planes')
      return { storage: 'planes', alphas: like(values.alphas), offsets: like(values.offsets) };
    if (values.storage === 'realOffset')
      return { storage: 'realOffset', scales: like(values.scales), offsets: like(values.offsets) };
    return { storage: 'zeroCode', scales: like(values.scales), zeros: like(values.zeros) };
  }
}
