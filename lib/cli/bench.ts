import { cpus } from 'node:os';
import { type Command, InvalidArgumentError, Option } from 'commander';
import { Bench } from 'tinybench';
import { lutraError } from '../errors.js';
import { addon, taskIds } from '../native/index.js';
import { dequantize, lutGemm, type Mode, Program } from '../ops/index.js';
import {
  checkLayout,
  codesBytes,
  type QuantizedLayout,
  QuantizedTensor,
  scalesElements,
  Tensor,
} from '../tensor/index.js';
import {
  type CommonOptions,
  type Invocation,
  runCommand,
  threadsOption,
  wholeNumber,
  withCommonOptions,
} from './command.js';
import { counted, table } from './table.js';

interface BenchOptions extends CommonOptions {
  shape: [number, number];
  groupSize: number;
  tokens: number;
  threads: number;
  rotate: number;
  time: number;
}

interface BenchRow {
  bits: number;
  mode: Mode;
  milliseconds: number;
  gigabytesPerSecond: number;
  shareOfReadBandwidth: number;
  normalizedMeanSquaredError: number;
}

interface BenchResult {
  processor: string;
  isa: string;
  threads: number;
  shape: string;
  groupSize: number;
  tokens: number;
  matrices: number;
  readGigabytesPerSecond: number;
  rows: BenchRow[];
}

const widths = [2, 3, 4] as const;
const modes: readonly Mode[] = ['exact', 'accurate', 'fast'];
/** Larger than any cache, so that reading it once is reading memory. */
const probeBytes = 1 << 30;

export function registerBench(program: Command): void {
  withCommonOptions(program.command('bench').description('time lutGemm on this machine, with the error of its result'))
    .addOption(
      new Option('--shape <MxK>', 'out features x in features')
        .argParser(parseShape)
        .default([4096, 4096], '4096x4096'),
    )
    .option('--group-size <n>', 'columns a group, -1 for the row', wholeNumber(-1), 128)
    .option('--tokens <n>', 'rows of activations', wholeNumber(1), 1)
    .addOption(threadsOption())
    .option('--rotate <MB>', 'rotate over matrices of this many megabytes, so that caches stay cold', wholeNumber(0), 0)
    .option('--time <ms>', 'time for each row', wholeNumber(1), 300)
    .action((options: BenchOptions) =>
      runCommand('bench', options, (invocation) => bench(options, invocation), render),
    );
}

function parseShape(text: string): [number, number] {
  const [, m, k] = /^(\d+)x(\d+)$/.exec(text) ?? [];
  if (!Number(m) || !Number(k)) throw new InvalidArgumentError('two sizes are needed, for example 4096x4096.');
  return [Number(m), Number(k)];
}

async function bench(options: BenchOptions, { signal }: Invocation): Promise<BenchResult> {
  const [rows, cols] = options.shape;
  const { groupSize } = options;
  const layouts = widths.map((bits) => ({ rows, cols, bits, groupSize, kind: 'uniform', offsets: 'none' }) as const);
  for (const layout of layouts) checkLayout(layout, 'lutra bench');
  const { isa, threads } = addon().describe();
  say('reading memory');
  const read = await readBandwidth(options.threads, signal);
  const result: BenchResult = {
    processor: cpus()[0]?.model ?? 'unknown',
    isa,
    threads: options.threads || threads,
    shape: `${rows}x${cols}`,
    groupSize,
    tokens: options.tokens,
    matrices: 1,
    readGigabytesPerSecond: read / 1e9,
    rows: [],
  };
  for (const layout of layouts) {
    const copies = Math.max(1, Math.ceil((options.rotate * 1e6) / codesBytes(layout)));
    result.matrices = Math.max(result.matrices, copies);
    say(`timing W${layout.bits} on ${counted(copies, 'random matrix', 'random matrices')}`);
    const matrices = Array.from({ length: copies }, (_, seed) => randomMatrix(layout, seed));
    for (const mode of modes) {
      signal.throwIfAborted();
      result.rows.push(await timeMode(matrices, mode, options, read));
    }
    for (const matrix of matrices) matrix.dispose();
  }
  return result;
}

const say = (what: string): boolean => process.stderr.write(`${what}\n`);

async function timeMode(
  matrices: QuantizedTensor[],
  mode: Mode,
  options: BenchOptions,
  read: number,
): Promise<BenchRow> {
  const [first] = matrices as [QuantizedTensor];
  const x = Tensor.copyOf(randomValues(options.tokens * first.layout.cols, 1), [options.tokens, first.layout.cols]);
  const out = Tensor.zeros('f32', [options.tokens, first.layout.rows]);
  let turn = 0;
  const runner = new Bench({ time: options.time, warmupTime: options.time / 4 });
  runner.add('lutGemm', () => {
    const matrix = matrices[turn++ % matrices.length] ?? first;
    lutGemm(x, matrix, { mode, out, threads: options.threads });
  });
  await runner.run();
  const outcome = runner.tasks[0]?.result;
  if (outcome?.state !== 'completed')
    throw lutraError('LUTRA_E_INTERNAL', { message: `the benchmark did not complete: ${outcome?.state}`, where: mode });
  const milliseconds = outcome.latency.p50;
  const speed = first.byteLength / (milliseconds / 1e3);
  lutGemm(x, first, { mode, out, threads: options.threads });
  const row = {
    bits: first.layout.bits,
    mode,
    milliseconds,
    gigabytesPerSecond: speed / 1e9,
    shareOfReadBandwidth: speed / read,
    normalizedMeanSquaredError: errorOf(first, x, out),
  };
  x.dispose();
  out.dispose();
  return row;
}

/** Bytes a second of reading memory once, with the same threads and in the same minute as the rows. */
async function readBandwidth(threads: number, signal: AbortSignal): Promise<number> {
  using memory = Tensor.zeros('f32', [probeBytes / 4]);
  // Memory that was never written is one page of zeros again and again, out of a cache.
  memory.fill(1);
  const seconds: number[] = [];
  for (let i = 0; i < 5; i++) {
    signal.throwIfAborted();
    const begin = performance.now();
    await addon().task(taskIds.findNonFinite, [memory.native], [], threads, null);
    seconds.push((performance.now() - begin) / 1e3);
  }
  return probeBytes / Math.min(...seconds);
}

function randomValues(count: number, seed: number): Float32Array {
  let state = (seed * 2654435761 + 88172645) >>> 0;
  return Float32Array.from({ length: count }, () => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 0) / 2 ** 31 - 1;
  });
}

function randomMatrix(layout: QuantizedLayout, seed: number): QuantizedTensor {
  const values = randomValues(layout.rows * layout.cols, seed + 2);
  const levels = 2 ** layout.bits;
  const codes = Tensor.copyOf(
    Uint8Array.from(values, (value) => Math.min(levels - 1, Math.floor(((value + 1) / 2) * levels))),
    [layout.rows, layout.cols],
  );
  const packed = Tensor.zeros('u8', [codesBytes(layout)]);
  const program = new Program().packCodes(layout, codes, packed);
  program.run();
  program.dispose();
  codes.dispose();
  const scales = Tensor.zeros('f16', [scalesElements(layout)]);
  scales.fill(1 / 64);
  return new QuantizedTensor(layout, packed, scales, null);
}

/** NMSE of the first rows of the result against fp64 on the dequantized weights. */
function errorOf(matrix: QuantizedTensor, x: Tensor, y: Tensor): number {
  const { rows, cols } = matrix.layout;
  const weights = dequantize(matrix);
  const checked = Math.min(rows, 256);
  const w = weights.read(0, checked * cols);
  weights.dispose();
  const input = x.read(0, cols);
  const output = y.read(0, checked);
  let error = 0;
  let power = 0;
  for (let m = 0; m < checked; m++) {
    let sum = 0;
    for (let k = 0; k < cols; k++) sum += (w[m * cols + k] ?? 0) * (input[k] ?? 0);
    error += ((output[m] ?? 0) - sum) ** 2;
    power += sum * sum;
  }
  return error / power;
}

function render(result: BenchResult): string {
  // Out of warm caches weights come faster than memory can be read: a share of its speed would tell nothing.
  const cold = result.matrices > 1;
  const heading =
    `${result.processor}, ${result.isa}, ${result.threads} threads; ${result.shape}, group ${result.groupSize}, ` +
    `${counted(result.tokens, 'token')}, ` +
    (cold ? `rotating over up to ${result.matrices} matrices` : 'one matrix, caches warm') +
    `; memory reads at ${result.readGigabytesPerSecond.toFixed(1)} GB/s`;
  const rows = result.rows.map((row) => [
    `W${row.bits}`,
    row.mode,
    row.milliseconds.toFixed(4),
    row.gigabytesPerSecond.toFixed(1),
    ...(cold ? [`${(100 * row.shareOfReadBandwidth).toFixed(0)} %`] : []),
    row.normalizedMeanSquaredError.toExponential(1),
  ]);
  const columns = ['width', 'mode', 'ms', 'packed GB/s', ...(cold ? ['of memory'] : []), 'NMSE'];
  return `${heading}\n\n${table(columns, rows)}`;
}
