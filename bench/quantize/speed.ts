/**
 * Seconds that the methods take for one matrix of Llama-2-7B's sizes, and the share of the machine's multiply-add peak,
 * measured in the same run, that their arithmetic reaches:
 *
 *     npx tsx bench/quantize/speed.ts [--methods gptq,decoupleq] [--shapes 4096x4096,11008x4096,4096x11008]
 *         [--bits 3] [--group-size 128] [--threads 0] [--out bench/results/quantize-speed.jsonl]
 *
 * Shapes are outFeatures x inFeatures. Weights are random, inputs correlated: a few strong directions over noise. Every row
 * has the error that the method reached, in the metric of those inputs, beside round to nearest on the same levels.
 */
import { mkdirSync, writeFileSync } from 'node:fs';
import { dirname } from 'node:path';
import { parseArgs } from 'node:util';
import { linesOf, machineCard, parseShape, Random, type Shape, shapeName } from '../../lib/benchmark/index.js';
import { table } from '../../lib/cli/table.js';
import { Program } from '../../lib/ops/index.js';
import {
  disposeSolved,
  normalizeRecipe,
  prepareInputs,
  type Statistics,
  solveMatrix,
} from '../../lib/quantization/index.js';
import { Tensor } from '../../lib/tensor/index.js';
import { peakMacs } from '../kernels/dense.js';
import { type SpeedCase, speedCases } from './speed-cases.js';

const { values: given } = parseArgs({
  options: {
    methods: { type: 'string', default: speedCases.map(({ name }) => name).join(',') },
    shapes: { type: 'string', default: '4096x4096,11008x4096,4096x11008' },
    bits: { type: 'string', default: '3' },
    'group-size': { type: 'string', default: '128' },
    threads: { type: 'string', default: '0' },
    out: { type: 'string' },
  },
});
const grid = { bits: Number(given.bits), groupSize: Number(given['group-size']) };
const threads = Number(given.threads);
const cases = given.methods.split(',').map((name) => {
  const found = speedCases.find((candidate) => candidate.name === name);
  if (!found) throw new Error(`no method ${name}: ${speedCases.map((candidate) => candidate.name).join(', ')}`);
  return found;
});

interface SpeedRow {
  method: string;
  shape: string;
  bits: number;
  groupSize: number;
  threads: number;
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

const strong = 32; // directions
const noise = 0.5;

/** The sum of xᵀx of inputs with some strong directions over noise: a low-rank part and a diagonal. */
function correlated(k: number, random: Random): Tensor {
  using x = Tensor.copyOf(random.normals(strong * k), [strong, k]);
  const hessian = Tensor.zeros('f64', [k, k]);
  using program = new Program().accumulateGram(x, hessian);
  program.run();
  for (let i = 0; i < k; i++) {
    const at = i * (k + 1);
    hessian.write(new Float64Array([hessian.read(at, 1)[0]! + strong * noise]), at);
  }
  return hessian;
}

async function measure({ name, recipe, operations }: SpeedCase, { rows: m, cols: k }: Shape): Promise<SpeedRow> {
  const random = new Random(m + k);
  using w = Tensor.copyOf(
    random.normals(m * k).map((v) => 0.02 * v),
    [m, k],
  );
  using hessian = correlated(k, random);
  const full = normalizeRecipe({ ...recipe, ...grid });
  const statistics: Statistics = { hessian };
  const call = { threads, where: name };
  const started = performance.now();
  const prepared = await prepareInputs(full, statistics, call);
  const ready = performance.now();
  try {
    const solved = await solveMatrix(w, full, { ...prepared, statistics }, call);
    const done = performance.now();
    disposeSolved(solved);
    const { relativeError, rtnError } = solved.report;
    const peakGflops = 2 * peakMacs(threads === 1 ? 1 : 2);
    const work = operations(m, k, grid.groupSize === -1 ? 1 : Math.ceil(k / grid.groupSize));
    return {
      method: name,
      shape: shapeName({ rows: m, cols: k }),
      ...grid,
      threads,
      prepareSeconds: (ready - started) / 1e3,
      solveSeconds: (done - ready) / 1e3,
      operations: work,
      peakGflops,
      shareOfPeak: work / 1e6 / (done - started) / peakGflops,
      relativeError,
      rtnError,
    };
  } finally {
    prepared.release();
  }
}

const results: SpeedRow[] = [];
const shapes = given.shapes.split(',').map((text) => {
  const shape = parseShape(text);
  if (!shape) throw new Error(`no shape: ${text}`);
  return shape;
});
for (const shape of shapes)
  for (const one of cases) {
    results.push(await measure(one, shape));
    console.error(JSON.stringify(results.at(-1)));
  }
const head = ['method', 'shape', 'prepare s', 'solve s', 'Gflop', 'of the peak', 'error', 'of rounding'];
console.log(
  table(
    head,
    results.map((row) => [
      row.method,
      row.shape,
      row.prepareSeconds.toFixed(2),
      row.solveSeconds.toFixed(2),
      (row.operations / 1e9).toFixed(0),
      `${(100 * row.shareOfPeak).toFixed(0)} %`,
      row.relativeError.toPrecision(3),
      row.rtnError.toPrecision(3),
    ]),
  ),
);
if (given.out) {
  mkdirSync(dirname(given.out), { recursive: true });
  writeFileSync(given.out, linesOf(machineCard(), results));
}
