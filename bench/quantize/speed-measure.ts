/** What speed.ts measures of one method at one shape. */
import { Random, type Shape, shapeName } from '../../lib/benchmark/index.js';
import { Program } from '../../lib/ops/index.js';
import {
  disposeSolved,
  normalizeRecipe,
  prepareInputs,
  type Recipe,
  type Statistics,
  solveMatrix,
} from '../../lib/quantization/index.js';
import { Tensor, triangleElements } from '../../lib/tensor/index.js';
import { peakMacs } from '../kernels/dense.js';
import type { SpeedCase } from './speed-cases.js';

/** Which method, where and how. */
export interface Place {
  method: string;
  shape: string;
  bits: number;
  groupSize: number;
  threads: number;
}

export interface TimeRow extends Place {
  measure: 'time';
  /** What is done once for all matrices that read one input, and what every matrix takes, its errors measured. */
  prepareSeconds: number;
  solveSeconds: number;
  /** Operations of the method's passes, a multiplication and an addition counted as two. */
  operations: number;
  peakGflops: number;
  shareOfPeak: number;
  relativeError: number;
  rtnError: number;
}

export interface AbortRow extends Place {
  measure: 'abort';
  /** When the signal was raised, in seconds since the start, and what passed until the call had ended. */
  aborts: { seconds: number; milliseconds: number }[];
  slowestMilliseconds: number;
}

const strong = 32; // directions
const noise = 0.5;

/** The sum of xᵀx of inputs with some strong directions over noise, packed: a low-rank part and a diagonal. */
function correlated(k: number, random: Random): Tensor {
  using x = Tensor.copyOf(random.normals(strong * k), [strong, k]);
  const hessian = Tensor.zeros('f64', [triangleElements(k)]);
  using program = new Program().accumulateGram(x, hessian);
  program.run();
  for (let i = 0, at = 0; i < k; at += k - i, i++)
    hessian.write(new Float64Array([hessian.read(at, 1)[0]! + strong * noise]), at);
  return hessian;
}

/** Random weights and inputs of one shape; their making is not measured. */
export class Workpiece {
  readonly #w: Tensor;
  readonly #hessian: Tensor;
  readonly #recipe: Recipe;

  constructor(
    private readonly work: SpeedCase,
    private readonly shape: Shape,
    private readonly place: Place,
  ) {
    const { rows: m, cols: k } = shape;
    const random = new Random(m + k);
    const weights = random.normals(m * k).map((v) => 0.02 * v);
    this.#w = Tensor.copyOf(weights, [m, k]);
    this.#hessian = correlated(k, random);
    const { bits, groupSize } = place;
    this.#recipe = normalizeRecipe({ ...work.recipe, bits, groupSize });
  }

  async time(): Promise<TimeRow> {
    const { prepared, solved, errors } = await this.#run();
    const { rows: m, cols: k } = this.shape;
    const { groupSize, threads } = this.place;
    const operations = this.work.operations(m, k, groupSize === -1 ? 1 : Math.ceil(k / groupSize));
    const peakGflops = 2 * peakMacs(threads === 1 ? 1 : 2);
    const shareOfPeak = operations / 1e9 / (prepared + solved) / peakGflops;
    const times = { prepareSeconds: prepared, solveSeconds: solved, operations, peakGflops, shareOfPeak };
    return { measure: 'time', ...this.place, ...times, ...errors };
  }

  /** Aborts the work at instants that are spread over the time it takes. */
  async abort(seconds: number, times: number): Promise<AbortRow> {
    const aborts: AbortRow['aborts'] = [];
    for (let i = 0; i < times; i++) {
      const controller = new AbortController();
      const started = performance.now();
      let raised = Number.NaN;
      const timer = setTimeout(
        () => {
          raised = performance.now();
          controller.abort(new Error('aborted'));
        },
        (1e3 * seconds * (i + 0.5)) / times,
      );
      const failure = await this.#run(controller.signal).then(
        () => null,
        (error: unknown) => error,
      );
      clearTimeout(timer);
      if (failure && failure !== controller.signal.reason) throw failure;
      // A run that was faster than the measured one has nothing to tell.
      if (failure) aborts.push({ seconds: (raised - started) / 1e3, milliseconds: performance.now() - raised });
    }
    if (aborts.length === 0) throw new Error(`${this.place.method} at ${this.place.shape} ended before every abort`);
    const slowestMilliseconds = Math.max(...aborts.map(({ milliseconds }) => milliseconds));
    return { measure: 'abort', ...this.place, aborts, slowestMilliseconds };
  }

  async #run(signal?: AbortSignal) {
    const statistics: Statistics = { hessian: this.#hessian };
    const call = { threads: this.place.threads, where: this.work.name, signal };
    const started = performance.now();
    const inputs = await prepareInputs(this.#recipe, statistics, call);
    const ready = performance.now();
    try {
      const solved = await solveMatrix(this.#w, this.#recipe, { ...inputs, statistics }, call);
      const done = performance.now();
      disposeSolved(solved);
      const { relativeError, rtnError } = solved.report;
      return { prepared: (ready - started) / 1e3, solved: (done - ready) / 1e3, errors: { relativeError, rtnError } };
    } finally {
      inputs.release();
    }
  }

  [Symbol.dispose](): void {
    this.#w.dispose();
    this.#hessian.dispose();
  }
}

export const placeOf = (
  work: SpeedCase,
  shape: Shape,
  given: Pick<Place, 'bits' | 'groupSize' | 'threads'>,
): Place => ({
  method: work.name,
  shape: shapeName(shape),
  ...given,
});
