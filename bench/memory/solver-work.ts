/**
 * What solving and measuring one matrix takes of memory beside its weights and its Hessian, for the `work` of a solver: bytes a
 * weight and packed f64 triangles of the Hessian's size, from a tall and a wide matrix, each in a process of its own:
 *
 *     npx tsx bench/memory/solver-work.ts <method> …
 *
 * A method with options is written as JSON: '{ "method": "boa", "rounding": { "method": "aespa" } }'.
 */
import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { Random } from '../../lib/calibration/index.js';
import { quantize, Tensor } from '../../lib/index.js';
import { Program } from '../../lib/ops/index.js';
import { triangleElements } from '../../lib/tensor/index.js';

const shapes = [
  [4096, 1024],
  [1024, 4096],
] as const;
const tokens = 256;

/** The peak of this process since it began. */
const peakBytes = () => 1024 * Number(/VmHWM:\s+(\d+)/.exec(readFileSync('/proc/self/status', 'utf8'))?.[1]);

function randomTensor(rows: number, cols: number, random: Random): Tensor {
  const tensor = Tensor.zeros('f32', [rows, cols]);
  const row = new Float32Array(cols);
  for (let i = 0; i < rows; i++)
    tensor.write(
      row.map(() => random.next() - 0.5),
      i * cols,
    );
  return tensor;
}

async function extraBytes(method: string, m: number, k: number): Promise<number> {
  const random = new Random(1);
  const w = randomTensor(m, k, random);
  const hessian = Tensor.zeros('f64', [triangleElements(k)]);
  {
    using x = randomTensor(tokens, k, random);
    using program = new Program().accumulateGram(x, hessian);
    await program.runAsync({});
  }
  const before = process.memoryUsage.rss();
  const options = { statistics: { hessian, tokens } };
  const choice = method.startsWith('{') ? JSON.parse(method) : { method };
  (await quantize(w, { ...choice, bits: 3, groupSize: 128 }, options)).dispose();
  return peakBytes() - before;
}

const [, , ...methods] = process.argv;
if (methods[0] === '--part') {
  const [, method = '', m, k] = methods;
  console.log(await extraBytes(method, Number(m), Number(k)));
} else
  for (const method of methods) {
    const [tall = 0, wide = 0] = shapes.map(([m, k]) => {
      const args = [...process.execArgv, import.meta.filename, '--part', method, `${m}`, `${k}`];
      return Number(execFileSync(process.execPath, args, { encoding: 'utf8' }));
    });
    // Both matrices have as many weights: what differs is the Hessian.
    const [weights, less, more] = [
      shapes[0][0] * shapes[0][1],
      8 * triangleElements(shapes[0][1]),
      8 * triangleElements(shapes[1][1]),
    ];
    const hessians = (wide - tall) / (more - less);
    console.log(
      `${method}: { perWeight: ${((tall - hessians * less) / weights).toFixed(1)}, hessians: ${hessians.toFixed(2)} }`,
    );
  }
