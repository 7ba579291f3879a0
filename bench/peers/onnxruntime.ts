import { type ChildProcess, fork } from 'node:child_process';
import { once } from 'node:events';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { type BenchCase, coldCount, type Entry, type Peer } from '../../lib/benchmark/index.js';
import type { Answer, ProductSpec, Request } from './onnxruntime-process.js';

/** Whether `npm ci --ignore-scripts` was run in this folder. */
export function onnxRuntimeIsInstalled(): boolean {
  try {
    createRequire(import.meta.url).resolve('onnxruntime-node');
    return true;
  } catch {
    return false;
  }
}

/** A kernel of the peer: 0 computes in fp32, 4 in int8, and for 2 bits there are look-up tables. */
export type OnnxKernel = 'fp32' | 'int8' | 'lookUp';

/**
 * The kernels for a width. 2 bits in fp32 are left out: there is no kernel for it, and the matrix is dequantized on every
 * call, some 200 times slower.
 */
const kernelsOf = (bits: number): OnnxKernel[] =>
  bits === 2 ? ['int8', 'lookUp'] : bits === 4 ? ['int8', 'fp32'] : [];

/** Blocks that MatMulNBits knows. */
const blockSizes = [16, 32, 64, 128, 256];

/** onnxruntime-node's MatMulNBits, in a process of its own that is stopped while others are measured. */
export class OnnxRuntime implements Peer {
  readonly #process: ChildProcess;
  readonly #kill = () => this.#process.kill('SIGKILL');
  #pending: { resolve(answer: Answer): void; reject(error: Error): void } | null = null;
  #products = 0;
  #ended: Error | null = null;
  readonly name = 'ORT';

  constructor() {
    this.#process = fork(join(import.meta.dirname, 'onnxruntime-process.ts'), { execArgv: process.execArgv });
    this.#process.on('message', (answer: Answer) => this.#pending?.resolve(answer));
    this.#process.on('exit', (code, signal) => {
      this.#ended = new Error(`the process of ONNX Runtime ended with ${code ?? signal}`);
      this.#pending?.reject(this.#ended);
    });
    // A stopped process would outlive this one.
    process.once('exit', this.#kill);
  }

  async entries(one: BenchCase): Promise<Entry[]> {
    const entries: Entry[] = [];
    if (one.kind === 'uniform' && one.rank === 0 && one.caches !== 'idle')
      for (const kernel of kernelsOf(one.bits)) entries.push(...(await this.kernelEntries(one, kernel)));
    return entries;
  }

  /** One kernel on the case's shape, width, tokens and threads; none where it does not take the shape. */
  async kernelEntries(one: BenchCase, kernel: OnnxKernel): Promise<Entry[]> {
    const { shape, bits, tokens, threads, groupSize: blockSize } = one;
    const fits = blockSizes.includes(blockSize) && shape.cols % blockSize === 0;
    if (!fits || (kernel === 'lookUp' && shape.rows % 128 !== 0)) return [];
    const work = (shape.rows * shape.cols * bits) / 8 + (shape.rows * shape.cols * 4) / blockSize;
    const matrices = one.caches === 'cold' ? coldCount(work) : 1;
    const accuracyLevel = kernel === 'int8' ? 4 : 0;
    const lookUp = kernel === 'lookUp';
    const spec: ProductSpec = { ...shape, bits, blockSize, accuracyLevel, lookUp, tokens, threads, matrices };
    const id = this.#products++;
    await this.#ask({ kind: 'load', id, spec });
    const entry: Entry = {
      by: this.name,
      mode: kernel,
      work,
      matrices,
      burst: (length) => this.#ask({ kind: 'burst', id, length }),
      error: async () => (await this.#ask({ kind: 'error', id }))[0] ?? Number.NaN,
      dispose: async () => void (await this.#ask({ kind: 'release', id })),
    };
    return [entry];
  }

  async dispose(): Promise<void> {
    process.off('exit', this.#kill);
    this.#kill();
    if (this.#process.exitCode === null && this.#process.signalCode === null) await once(this.#process, 'exit');
  }

  async #ask(request: Request): Promise<number[]> {
    if (this.#ended) throw this.#ended;
    this.#process.kill('SIGCONT');
    const answered = new Promise<Answer>((resolve, reject) => {
      this.#pending = { resolve, reject };
    });
    // Where it ends before it has read this, `exit` tells.
    this.#process.send(request, () => {});
    const answer = await answered;
    this.#process.kill('SIGSTOP');
    if ('failure' in answer) throw new Error(`ONNX Runtime: ${answer.failure}`);
    return answer.values;
  }
}
