import { Program } from '../ops/index.js';
import type { QuantizedLayer } from '../pipeline/index.js';
import { asFloat32 } from '../quantization/index.js';
import { Tensor } from '../tensor/index.js';

/**
 * What quantization made of the weights of all layers together, each in units of its layer's root mean square before. The
 * outermost bins hold what lies beyond.
 */
export interface WeightHistograms {
  /** Weights as the solver was given them. */
  before: Histogram;
  after: Histogram;
  /** What was added to a weight. */
  error: Histogram;
  /** ‖ΔW‖² / ‖W‖² of the counted weights of all layers. */
  relativeError: number;
}

/** Counts of values between -limit and limit, in bins of the same width. */
export interface Histogram {
  limit: number;
  counts: number[];
}

const bins = 81;
const weightLimit = 4;
const errorLimit = 1.5;
/** Weights of a matrix that are read at least, in rows spread evenly over it, where it has more. */
const sampled = 2 ** 16;

/** Collects the histograms of one job, a layer at a time. */
export class HistogramCollector {
  readonly #before = emptyHistogram(weightLimit);
  readonly #after = emptyHistogram(weightLimit);
  readonly #error = emptyHistogram(errorLimit);
  #errorPower = 0;
  #power = 0;

  /** Adds a layer. Neither tensor is kept. */
  async add({ name, original, packed }: QuantizedLayer, signal?: AbortSignal): Promise<void> {
    const call = { signal, where: name };
    using after = Tensor.zeros('f32', packed.shape);
    using program = new Program().dequantize(packed, after);
    await program.runAsync({ signal });
    const before = await asFloat32(original, call);
    try {
      this.#count(sampleOf(before), sampleOf(after));
    } finally {
      if (before !== original) before.dispose();
    }
  }

  #count(before: Float32Array, after: Float32Array): void {
    const power = before.reduce((sum, w) => sum + w * w, 0);
    const unit = Math.sqrt(power / before.length) || 1;
    before.forEach((w, i) => {
      const error = (after[i] ?? Number.NaN) - w;
      this.#errorPower += error * error;
      increment(this.#before, w / unit);
      increment(this.#after, (w + error) / unit);
      increment(this.#error, error / unit);
    });
    this.#power += power;
  }

  get histograms(): WeightHistograms {
    const relativeError = this.#power === 0 ? 0 : this.#errorPower / this.#power;
    return { before: this.#before, after: this.#after, error: this.#error, relativeError };
  }
}

const emptyHistogram = (limit: number): Histogram => ({ limit, counts: new Array<number>(bins).fill(0) });

function increment({ limit, counts }: Histogram, value: number): void {
  const bin = Math.floor(((value + limit) / (2 * limit)) * bins);
  const within = Math.min(bins - 1, Math.max(0, bin));
  counts[within] = (counts[within] ?? 0) + 1;
}

/** Every row of a small matrix, every so manieth of a large one, one after another. */
function sampleOf(x: Tensor): Float32Array {
  const [rows = 0, cols = 0] = x.shape;
  const step = Math.max(1, Math.floor((rows * cols) / sampled));
  const sample = new Float32Array(Math.ceil(rows / step) * cols);
  for (let row = 0; row < rows; row += step) sample.set(x.read(row * cols, cols) as Float32Array, (row / step) * cols);
  return sample;
}
