/** The fp32 products that calibration lives on, against the multiply-add peak of the machine. */
import { execFileSync } from 'node:child_process';
import { join } from 'node:path';
import { burst, type Contestant, type Entry, normalizedMeanSquaredError, Random } from '../../lib/benchmark/index.js';
import { Program } from '../../lib/ops/index.js';
import { Tensor, triangleElements } from '../../lib/tensor/index.js';

export interface DenseCase {
  /** y = x · wᵀ, or the Gram matrix xᵀ · x as the packed triangle that calibration sums up. */
  op: 'gemm' | 'syrk';
  /** Rows and columns of every operand. */
  size: number;
  threads: number;
}

const checkedRows = 16;

/** A contestant whose work is in floating-point operations. */
export function denseEntry({ op, size, threads }: DenseCase): Entry {
  const random = new Random(size);
  const x = Tensor.copyOf(random.normals(size * size), [size, size]);
  const w = Tensor.copyOf(random.normals(size * size), [size, size]);
  const y = op === 'gemm' ? Tensor.zeros('f32', [size, size]) : Tensor.zeros('f64', [triangleElements(size)]);
  const program = op === 'gemm' ? new Program().linear(w, x, y) : new Program().accumulateGram(x, y);
  let calls = 0;
  return {
    by: 'lutra',
    mode: op,
    work: op === 'gemm' ? 2 * size ** 3 : size ** 2 * (size + 1),
    matrices: 1,
    burst(length) {
      calls = 0;
      y.fill(op === 'gemm' ? Number.NaN : 0);
      return burst(() => {
        program.run({ threads });
        calls++;
      }, length);
    },
    error() {
      // The Gram matrix of every call is added to that of the calls before.
      const exact = op === 'gemm' ? products(x, w) : gram(x).map((value) => value * calls);
      return normalizedMeanSquaredError(y.read(0, exact.length), exact);
    },
    dispose() {
      program.dispose();
      for (const tensor of [x, w, y]) tensor.dispose();
    },
  };
}

/** The first rows of x · wᵀ in fp64. */
function products(x: Tensor, w: Tensor): number[] {
  const [size = 0] = x.shape;
  const [a, b] = [x.read(0, checkedRows * size), w.read()];
  return Array.from({ length: checkedRows * size }, (_, index) => {
    const [row, column] = [Math.floor(index / size), index % size];
    let sum = 0;
    for (let k = 0; k < size; k++) sum += (a[row * size + k] ?? 0) * (b[column * size + k] ?? 0);
    return sum;
  });
}

/** The first rows of xᵀ · x in fp64, each from the diagonal on. */
function gram(x: Tensor): number[] {
  const [size = 0] = x.shape;
  const data = x.read();
  const sums: number[] = [];
  for (let row = 0; row < checkedRows; row++)
    for (let column = row; column < size; column++) {
      let sum = 0;
      for (let k = 0; k < size; k++) sum += (data[k * size + row] ?? 0) * (data[k * size + column] ?? 0);
      sums.push(sum);
    }
  return sums;
}

const root = join(import.meta.dirname, '..', '..');
const build = join(root, 'build', 'bench');

/** fp32 operations a second, in 1e9, of so many threads, from a program of its own (fma_peak.cc). */
const peakRate = (threads: number): number =>
  JSON.parse(execFileSync(join(build, 'fma_peak'), [String(threads)], { encoding: 'utf8' })).gigaflops;

function buildPeakProgram(): void {
  const cmake = (...args: string[]) =>
    execFileSync('cmake', args, { cwd: root, stdio: ['ignore', 'ignore', 'inherit'] });
  cmake('-S', '.', '-B', build, '-DLUTRA_BENCH=ON');
  cmake('--build', build, '--target', 'fma_peak');
}

/** Reaches the peak; its work is in floating-point operations. */
export function peakContestant(threads: number): Contestant {
  buildPeakProgram();
  return { work: 1e9, burst: () => [1e3 / peakRate(threads)] };
}

/** The peak in multiply-adds, 1e9 a second. */
export function peakMacs(threads: number): number {
  buildPeakProgram();
  return peakRate(threads) / 2;
}
