import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { beforeAll, describe, expect, it } from 'vitest';
import {
  type Diagnosis,
  dequantize,
  doctor,
  type Mode,
  type QuantizedLayout,
  QuantizedTensor,
  quantizeModel,
  readCheckpoint,
} from '../../lib/index.js';
import { addon } from '../../lib/native/index.js';
import { seeded } from '../lib/formats/safetensors-bytes.js';
import { scratchDirectory } from '../lib/pipeline/random-model.js';
import { LlamaOracle, type OracleTensor } from '../oracle/llama-oracle.js';
import { readOracleModel } from '../oracle/read-weights.js';
import { randomPacked } from './tile.js';

/** What each level needs, whatever the best one of this machine is. */
const avx2 = ['AVX2', 'FMA', 'F16C'];
const avx512 = [...avx2, 'AVX-512 F/BW/DQ/VL'];
const avx512vbmi = [...avx512, 'AVX-512 VNNI', 'AVX-512 VBMI'];
const needs: Record<string, string[]> = {
  scalar: [],
  avx2,
  avxvnni: [...avx2, 'AVX-VNNI'],
  avx512,
  avx512vbmi,
  amx: [...avx512vbmi, 'AVX-512 BF16', 'AMX-TILE', 'AMX-INT8', 'AMX-BF16'],
  neon: ['NEON'],
  neondot: ['NEON', 'dot product'],
  neoni8mm: ['NEON', 'dot product', 'i8mm'],
};
const { features } = doctor();
/** Every level that the addon names, from worse to better, and those of them that this machine runs. */
const levels = addon().describe().isas;
const runs = (isa: string, on: readonly string[]) => needs[isa]!.every((feature) => on.includes(feature));
const isas = levels.filter((isa) => runs(isa, features));
const modes = ['exact', 'accurate', 'fast'] as const;

type Shape = [
  rows: number,
  cols: number,
  groupSize: number,
  bits: number,
  kind: QuantizedLayout['kind'],
  offsets: QuantizedLayout['offsets'],
  tokens: number,
];
const shapes: Shape[] = [
  [81, 70, 32, 3, 'uniform', 'zeroCode', 1],
  [64, 96, 16, 2, 'uniform', 'real', 2],
  [130, 257, 64, 4, 'uniform', 'none', 5],
  [33, 161, -1, 4, 'uniform', 'zeroCode', 40],
  [17, 33, -1, 2, 'planes', 'real', 3],
  [130, 257, 64, 3, 'planes', 'none', 1],
  [37, 100, 32, 4, 'planes', 'real', 33],
  [50, 66, 16, 3, 'planes', 'real', 4],
];

const random = seeded(11);
const cases = shapes.map(([rows, cols, groupSize, bits, kind, offsets, tokens]) => ({
  ...randomPacked({ rows, cols, groupSize, bits, kind, offsets }, random),
  x: Array.from({ length: tokens * cols }, () => Math.fround(random() + random() + random() - 1.5)),
}));

/** y = x · Wᵀ in fp64. */
function product({ layout: { rows, cols }, weights, x }: (typeof cases)[number]): number[] {
  const y: number[] = [];
  for (let t = 0; t < x.length / cols; t++)
    for (let m = 0; m < rows; m++) {
      let sum = 0;
      for (let k = 0; k < cols; k++) sum += x[t * cols + k]! * weights[m * cols + k]!;
      y.push(sum);
    }
  return y;
}

function nmse(found: readonly number[], expected: readonly number[]): number {
  expect(found).toHaveLength(expected.length);
  const energy = (values: readonly number[]) => values.reduce((sum, value) => sum + value * value, 0);
  return energy(expected.map((value, i) => value - found[i]!)) / energy(expected);
}

interface Results {
  diagnosis: Diagnosis;
  products: Record<Mode, { y: number[]; bound: number[] }>[];
  logits: Record<Mode, number[]>;
}

function runWith(isa: string, job: object): Results {
  const child = spawnSync(process.execPath, [join(import.meta.dirname, 'isa-run.mjs')], {
    env: { ...process.env, LUTRA_ISA: isa },
    input: JSON.stringify(job),
    encoding: 'utf8',
    maxBuffer: 2 ** 28,
  });
  expect(child.stderr).toBe('');
  expect(child.status).toBe(0);
  return JSON.parse(child.stdout) as Results;
}

const scratch = scratchDirectory();
const demo = join(import.meta.dirname, '..', 'fixtures', 'models', 'demo');
const quantized = join(scratch, 'quantized');
const ids = [1, 402, 15, 77, 300, 9, 512, 44, 1000, 3];

/** The oracle's logits of a model: fp64 on the weights that a checkpoint stands for. */
async function oracleLogits(directory: string): Promise<number[]> {
  const { config, weights } = readOracleModel(demo);
  const decoded = new Map<string, OracleTensor>(weights);
  await using checkpoint = await readCheckpoint(directory);
  for (const name of checkpoint.names) {
    using stored = await checkpoint.load(name);
    if (!(stored instanceof QuantizedTensor)) continue;
    using dense = dequantize(stored);
    decoded.set(name, { shape: [...dense.shape], data: dense.read() });
  }
  return new LlamaOracle(config, decoded).forward(ids).flatMap((row) => [...row]);
}

const expected: Record<string, number[]> = {};
beforeAll(async () => {
  await quantizeModel({ model: demo, out: quantized, recipe: { method: 'rtn', bits: 3, groupSize: 64 } });
  for (const directory of [demo, quantized]) expected[directory] = await oracleLogits(directory);
  expect(nmse(expected[quantized]!, expected[demo]!)).toBeGreaterThan(1e-3);
});

describe.each(isas)('with LUTRA_ISA=%s', (isa) => {
  let results: Results;
  beforeAll(() => {
    results = runWith(isa, { cases, model: quantized, ids });
  });

  it('that instruction set runs, and doctor says so', () => {
    const { diagnosis } = results;
    expect(diagnosis.isa).toBe(isa);
    expect(diagnosis.environment).toMatchObject({ LUTRA_ISA: isa });
    for (const [family, version] of Object.entries(diagnosis.kernels))
      expect(runs(version, needs[isa]!), `${family} runs ${version}`).toBe(true);
    expect(diagnosis.kernels.lut_gemm).toBe(isa);
    expect(diagnosis.advice).toEqual(isa === 'scalar' ? [expect.stringContaining('scalar path')] : []);
  });

  it.each(shapes.map((shape, index) => [shape.join(' '), index] as const))('lutGemm %s', (_, index) => {
    const exact = product(cases[index]!);
    const limits = { exact: 1e-12, accurate: 1e-7, fast: 2e-4 };
    for (const mode of modes) {
      const { y, bound } = results.products[index]![mode];
      expect(nmse(y, exact), mode).toBeLessThan(limits[mode]);
      expect(y.findIndex((value, i) => !(Math.abs(value - exact[i]!) <= bound[i]!))).toBe(-1);
    }
  });

  it('logits of the quantized demo model agree with the fp64 oracle in every mode', () => {
    // A layer's bound on the NMSE grows through four blocks.
    const limits = { exact: 1e-10, accurate: 1e-5, fast: 2e-2 };
    for (const mode of modes) expect(nmse(results.logits[mode], expected[quantized]!), mode).toBeLessThan(limits[mode]);
  });

  it('logits of the original agree with the fp64 oracle', () => {
    const { logits } = runWith(isa, { cases: [], model: demo, ids });
    expect(nmse(logits.exact, expected[demo]!)).toBeLessThan(1e-10);
  });
});

describe('a LUTRA_ISA that this machine cannot run', () => {
  it('leaves the best level of those that it can and that the forced one holds', () => {
    for (const missing of levels.filter((isa) => !isas.includes(isa))) {
      const { diagnosis } = runWith(missing, { cases: [] });
      const held = needs[missing]!.filter((feature) => features.includes(feature));
      expect(diagnosis.isa, missing).toBe(levels.filter((isa) => runs(isa, held)).at(-1));
    }
  });
});

describe('an unknown LUTRA_ISA', () => {
  it('is named by what doctor advises', () => {
    const { diagnosis } = runWith('sse9', { cases: [] });
    expect(diagnosis.advice[0]).toMatch(/LUTRA_ISA=sse9 .*scalar, avx2, .*avx512/);
    expect(diagnosis.isa).toBe(doctor().isa);
  });
});
