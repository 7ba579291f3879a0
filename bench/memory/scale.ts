/**
 * Memory and time at the shapes of a 1.1-billion-parameter model, on synthetic weights:
 *
 *     npx tsx bench/memory/scale.ts <work directory> [--out bench/results/scale.json]
 *
 * Needs 8 GB of disk. Each part runs in a process of its own, so that its peak memory is its own:
 * rtn at 3 bits of the whole model; loading and decoding the result; gptq W3g128 of two blocks with 128 x 2,048 tokens.
 * FMA_PEAK, in GFLOP/s of all threads (bench/kernels/fma_peak.cc prints it), gives the share of it that gptq reaches.
 */
import { execFileSync } from 'node:child_process';
import { existsSync, readdirSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { machineCard } from '../../lib/benchmark/index.js';
import { loadModel, lutGemm, QuantizedTensor, quantizeModel, Tensor } from '../../lib/index.js';
import { writeSyntheticCheckpoint } from './synthetic-checkpoint.js';

const calibration = join(
  import.meta.dirname,
  '..',
  '..',
  'test',
  'fixtures',
  'models',
  'demo-texts',
  'calibration.txt',
);
const whole = 'tinyllama-1.1b';
const twoBlocks = 'tinyllama-1.1b-two-blocks';

const median = (values: number[]) => [...values].sort((a, b) => a - b)[values.length >> 1] ?? Number.NaN;
const fileBytes = (directory: string) =>
  readdirSync(directory)
    .filter((name) => name.endsWith('.safetensors'))
    .reduce((sum, name) => sum + statSync(join(directory, name)).size, 0);

const parts: Record<string, (work: string) => Promise<unknown>> = {
  /** The whole model by round-to-nearest. */
  async rtn(work) {
    const out = join(work, 'rtn');
    const result = await quantizeModel({
      model: join(work, whole),
      out,
      recipe: { method: 'rtn', bits: 3, groupSize: 128 },
      overwrite: true,
    });
    const { seconds, peakRssBytes, bytes, bitsPerWeight, bitsPerParameter } = result;
    return { seconds, peakRssBytes, bytes, fileBytes: fileBytes(out), bitsPerWeight, bitsPerParameter };
  },

  /** Loads the result and decodes: step time against the sum of its products, each timed in the same run. */
  async decode(work) {
    const begin = performance.now();
    const model = await loadModel(join(work, 'rtn'));
    const loadSeconds = (performance.now() - begin) / 1e3;
    const rssBytes = process.memoryUsage().rss;
    const steps: number[] = [];
    let last = 0;
    const options = { maxTokens: 48, ignoreEos: true };
    for await (const _ of model.generate([1, 50, 60, 70], options)) {
      const now = performance.now();
      if (last) steps.push(now - last);
      last = now;
    }
    const stepMilliseconds = median(steps);
    const matrices = [...model.weights.values()].filter((weight) => weight instanceof QuantizedTensor);
    const rounds: number[] = [];
    for (let round = 0; round < 15; round++) {
      let sum = 0;
      for (const matrix of matrices) sum += timeProduct(matrix);
      rounds.push(sum);
    }
    const lutGemmMilliseconds = median(rounds);
    return {
      loadSeconds,
      rssBytes,
      fileBytes: fileBytes(join(work, 'rtn')),
      stepMilliseconds,
      lutGemmMilliseconds,
      ratio: stepMilliseconds / lutGemmMilliseconds,
      lutGemmGigabytesPerSecond:
        matrices.reduce((sum, { byteLength }) => sum + byteLength, 0) / lutGemmMilliseconds / 1e6,
    };
  },

  /** Two blocks by GPTQ with the literature's calibration size. */
  async gptq(work) {
    const marks: { block: number; phase: string; at: number }[] = [];
    const begin = performance.now();
    const result = await quantizeModel({
      model: join(work, twoBlocks),
      out: join(work, 'gptq'),
      recipe: { method: 'gptq', bits: 3, groupSize: 128 },
      calibration: { file: calibration, samples: 128, sequenceLength: 2048 },
      overwrite: true,
      onProgress: (event) => {
        if ('block' in event)
          marks.push({ block: event.block, phase: event.phase, at: (performance.now() - begin) / 1e3 });
      },
    });
    const phases: Record<string, number> = {};
    marks.forEach((mark, i) => {
      const previous = marks[i - 1];
      if (previous) phases[mark.phase] = (phases[mark.phase] ?? 0) + mark.at - previous.at;
    });
    const secondsPerBlock = ((marks.at(-1)?.at ?? 0) - (marks[0]?.at ?? 0)) / 2;
    const gigaflops = blockFlops(128 * 2048) / secondsPerBlock / 1e9;
    const peak = Number(process.env.FMA_PEAK);
    return {
      seconds: result.seconds,
      secondsPerBlock,
      phaseSecondsOfBothBlocks: phases,
      peakRssBytes: result.peakRssBytes,
      gigaflops,
      fmaPeakGigaflops: peak || null,
      shareOfFmaPeak: peak ? gigaflops / peak : null,
      worstRelativeError: Math.max(...result.layers.map(({ relativeError }) => relativeError)),
    };
  },
};

const inputs = new Map<number, { x: Tensor; out: Tensor }>();
function timeProduct(matrix: QuantizedTensor): number {
  const [rows, cols] = matrix.shape;
  const key = rows * 1e6 + cols;
  const buffers = inputs.get(key) ?? {
    x: Tensor.copyOf(
      Float32Array.from({ length: cols }, (_, i) => Math.sin(i)),
      [1, cols],
    ),
    out: Tensor.zeros('f32', [1, rows]),
  };
  inputs.set(key, buffers);
  const begin = performance.now();
  lutGemm(buffers.x, matrix, { out: buffers.out });
  return performance.now() - begin;
}

/** Operations of one block: two forward passes, four Gram matrices (half by symmetry), seven column passes. */
function blockFlops(tokens: number): number {
  const [d, ff, kv] = [2048, 5632, 256];
  const weights = 2 * d * d + 2 * d * kv + 3 * d * ff;
  const forward = 2 * weights * tokens + 2 * d * 2048 * tokens;
  const gram = tokens * (3 * d * d + ff * ff);
  const passes = d * d * (2 * d + 2 * kv + 2 * ff) + ff * ff * d;
  const factor = (3 * d ** 3 + ff ** 3) / 3;
  return 2 * forward + gram + passes + factor;
}

const [work, flag, value] = process.argv.slice(2);
if (!work) throw new Error('usage: tsx bench/memory/scale.ts <work directory> [--out <file>]');
if (flag === '--part') {
  const part = parts[value ?? ''];
  if (!part) throw new Error(`no part ${value}`);
  console.log(JSON.stringify(await part(work)));
} else {
  for (const name of [whole, twoBlocks])
    if (!existsSync(join(work, name, 'config.json'))) await writeSyntheticCheckpoint(join(work, name), name);
  const results: Record<string, unknown> = { machine: machineCard() };
  const run = (name: string) => {
    const args = [...process.execArgv, import.meta.filename, work, '--part', name];
    const result: unknown = JSON.parse(execFileSync(process.execPath, args, { encoding: 'utf8', maxBuffer: 1 << 24 }));
    console.log(name, result);
    return result;
  };
  results.rtn = run('rtn');
  results.decodeRuns = [run('decode'), run('decode'), run('decode')];
  results.gptq = run('gptq');
  if (flag === '--out' && value) writeFileSync(value, `${JSON.stringify(results, null, 1)}\n`);
}
