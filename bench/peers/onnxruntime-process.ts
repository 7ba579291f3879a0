/**
 * The process that ONNX Runtime is measured in: alone in it, because its threads and its allocator are its own. Answers
 * the requests of onnxruntime.ts one at a time.
 */
import { createRequire } from 'node:module';
import { asyncBurst, type BurstLength, normalizedMeanSquaredError, Random } from '../../lib/benchmark/index.js';
import { type NBitsMatrix, nBitsModel } from './onnx-model.js';

/** One way to compute one product. */
export interface ProductSpec {
  rows: number;
  cols: number;
  bits: number;
  blockSize: number;
  /** 0 computes in fp32, 4 in int8. */
  accuracyLevel: 0 | 4;
  /** The look-up-table kernels, for 2 bits. */
  lookUp: boolean;
  tokens: number;
  threads: number;
  /** Sessions, each with weights of its own, that calls rotate over. */
  matrices: number;
}

export type Request =
  | { kind: 'load'; id: number; spec: ProductSpec }
  | { kind: 'burst'; id: number; length: BurstLength }
  | { kind: 'error'; id: number }
  | { kind: 'release'; id: number };
/** Milliseconds for `burst`, the NMSE for `error`, nothing for the others, or why not. */
export type Answer = { values: number[] } | { failure: string };

/** The part of onnxruntime-node that is used here. */
interface Runtime {
  Tensor: new (type: 'float32', data: Float32Array, shape: readonly number[]) => object;
  InferenceSession: { create(model: Uint8Array, options: object): Promise<Session> };
}
interface Session {
  run(feeds: Record<string, object>, fetches: Record<string, object>): Promise<unknown>;
  release(): Promise<void>;
}

const runtime: Runtime = createRequire(import.meta.url)('onnxruntime-node');

/** Rows and tokens at most that a result is checked on. */
const checked = 64;

class Product {
  readonly #spec: ProductSpec;
  readonly #matrix: NBitsMatrix;
  readonly #x: Float32Array;
  readonly #y: Float32Array;
  readonly #sessions: Session[] = [];
  #turn = 0;

  constructor(spec: ProductSpec) {
    const { rows, cols, bits, blockSize, tokens } = spec;
    const random = new Random(bits);
    const codes = random.codes((rows * cols * bits) / 8, 8);
    const scales = Float32Array.from({ length: (rows * cols) / blockSize }, () => (0.5 + random.share()) / 64);
    this.#spec = spec;
    this.#matrix = { rows, cols, bits, blockSize, codes, scales };
    this.#x = new Random(tokens).normals(tokens * cols);
    this.#y = new Float32Array(tokens * rows);
  }

  async load(): Promise<void> {
    const { accuracyLevel, lookUp, threads, matrices } = this.#spec;
    const model = nBitsModel(this.#matrix, accuracyLevel);
    const options = {
      intraOpNumThreads: threads,
      interOpNumThreads: 1,
      logSeverityLevel: 3,
      // Idle sessions would spin on the processors that the next burst is measured on.
      extra: { session: { force_spinning_stop: '1' }, ...(lookUp && { mlas: { use_lut_gemm: '1' } }) },
    };
    for (let i = 0; i < matrices; i++) this.#sessions.push(await runtime.InferenceSession.create(model, options));
  }

  burst(length: BurstLength): Promise<number[]> {
    const { rows, cols, tokens } = this.#spec;
    const feeds = { x: new runtime.Tensor('float32', this.#x, [tokens, cols]) };
    const fetches = { y: new runtime.Tensor('float32', this.#y, [tokens, rows]) };
    this.#y.fill(Number.NaN);
    const call = async () => this.#sessions[this.#turn++ % this.#sessions.length]?.run(feeds, fetches);
    return asyncBurst(call, length);
  }

  /** NMSE of the last result against fp64. */
  error(): number {
    const { rows, cols, tokens } = this.#spec;
    const found: number[] = [];
    const exact: number[] = [];
    for (let i = 0; i < checked; i++) {
      const row = Math.floor((i * (rows - 1)) / (checked - 1));
      const token = i % tokens;
      let sum = 0;
      for (let k = 0; k < cols; k++) sum += this.#weight(row, k) * (this.#x[token * cols + k] ?? Number.NaN);
      exact.push(sum);
      found.push(this.#y[token * rows + row] ?? Number.NaN);
    }
    return normalizedMeanSquaredError(found, exact);
  }

  async release(): Promise<void> {
    for (const session of this.#sessions) await session.release();
  }

  #weight(row: number, k: number): number {
    const { cols, bits, blockSize, codes, scales } = this.#matrix;
    const index = row * cols + k;
    const code = ((codes[(index * bits) >> 3] ?? 0) >> ((index * bits) & 7)) & (2 ** bits - 1);
    return (code - 2 ** (bits - 1)) * (scales[Math.floor(index / blockSize)] ?? Number.NaN);
  }
}

const products = new Map<number, Product>();

async function answer(request: Request): Promise<number[]> {
  if (request.kind === 'load') {
    const product = new Product(request.spec);
    products.set(request.id, product);
    await product.load();
    return [];
  }
  const product = products.get(request.id);
  if (!product) throw new Error(`no product ${request.id}`);
  if (request.kind === 'burst') return product.burst(request.length);
  if (request.kind === 'error') return [product.error()];
  products.delete(request.id);
  await product.release();
  return [];
}

const reply = (message: Answer) => process.send?.(message);
process.on('message', (request: Request) =>
  answer(request).then(
    (values) => reply({ values }),
    (error) => reply({ failure: String(error instanceof Error ? error.message : error) }),
  ),
);
