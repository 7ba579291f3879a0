import { lutraError } from '../errors.js';
import {
  addon,
  cancellable,
  cudaIndex,
  cudaPath,
  type Device,
  guarded,
  modeIds,
  type NativeProgram,
  offsetKindIds,
  opIds,
  weightKindIds,
} from '../native/index.js';
import type { QuantizedLayout, QuantizedTensor, Tensor } from '../tensor/index.js';

/** Accuracy of products with packed weights: bounds on the NMSE against fp64 of 1e-12, 1e-7 and 2e-4. */
export type Mode = keyof typeof modeIds;

/** @throws `LUTRA_E_OPTION` for anything but a mode. @param where the argument, for the error */
export function checkMode(mode: Mode, where: string): Mode {
  if (Object.hasOwn(modeIds, mode)) return mode;
  throw lutraError('LUTRA_E_OPTION', {
    message: 'unknown mode',
    where,
    found: String(mode),
    expected: Object.keys(modeIds).join(', '),
  });
}

/** What products with weights promise. */
export interface ProductOptions {
  /** Accuracy of packed weights: 'exact' (NMSE 1e-12), 'accurate' (1e-7, default) or 'fast' (2e-4). */
  mode?: Mode | undefined;
  /** The same bits for a token alone or among any number of others; slower for many. Default false. */
  batchInvariant?: boolean | undefined;
}

/** @throws `LUTRA_E_OPTION` for anything but true or false. @param where the argument, for the error */
export function checkBatchInvariant(batchInvariant: boolean, where: string): boolean {
  if (typeof batchInvariant === 'boolean') return batchInvariant;
  throw lutraError('LUTRA_E_OPTION', {
    message: 'neither true nor false',
    where,
    found: String(batchInvariant),
    expected: 'true or false',
  });
}

/** Lanes that a pool has at most. */
export const maxThreads = 1024;

/** @throws `LUTRA_E_OPTION` for anything but a number of lanes. @param where the argument, for the error */
export function checkThreads(threads: number, where: string): number {
  if (Number.isInteger(threads) && threads >= 0 && threads <= maxThreads) return threads;
  throw lutraError('LUTRA_E_OPTION', {
    message: 'not a usable number of threads',
    where,
    found: String(threads),
    expected: `a whole number from 0, for all, to ${maxThreads}`,
  });
}

/** A weight matrix as a linear layer holds it: packed, or f32, f16 or bf16 [outFeatures, inFeatures]. */
export type Weight = Tensor | QuantizedTensor;

export interface RunOptions {
  /** The step scalar: position of the first token of this step in the sequence. Default 0. */
  position?: number;
  /** Lanes to use at most; 0, the default, uses the whole pool. */
  threads?: number;
}

export interface AttentionOptions {
  heads: number;
  kvHeads: number;
  headDim: number;
  /** Positions a query sees, itself included; 0 for all. */
  window: number;
}

/**
 * A list of operators with explicit outputs, recorded once and run as often as wanted. Operands are tensors of native
 * memory; the program keeps their memory alive. Nothing is computed before `run`; what changes from step to step is
 * the position and the content of the operands. n is the number of rows (tokens) of the activations.
 *
 * On a device the program works on copies of its operands there, made of what they hold when one of its programs first
 * names them and shared by all that name them: `upload` and `download` are what moves bytes from then on. A tensor has
 * one copy: another device, or one that took the place of a failed one, gets none (`LUTRA_E_DEVICE`). The operators of a
 * model step run there, the others throw `LUTRA_E_DEVICE`; the first run records a graph, and none is added later.
 */
export class Program {
  readonly #native: NativeProgram;

  /** @throws `LUTRA_E_DEVICE` where the device cannot be used; `requireCuda` says why */
  constructor(device: Device = 'cpu') {
    this.#native = guarded(() => new (addon().Program)(cudaIndex(device), cudaPath()), 'Program');
  }

  get length(): number {
    return this.#native.length();
  }

  /** y[n,m] = x[n,k] · Wᵀ, with packed weights by look-up table, else in fp32. */
  linear(weight: Weight, x: Tensor, y: Tensor, options: ProductOptions = {}): this {
    const [mode, batchInvariant] = productNumbers(options, 'linear');
    if ('layout' in weight) return this.#add('lutGemm', [x, y], [mode, batchInvariant], [weight]);
    return this.#add('linear', [x, weight, y], [batchInvariant]);
  }
  /**
   * As `linear` for several weights with the same x, each with its own result: what they make of x they make once, where
   * they are packed alike. Never changes a result's bits.
   */
  linears(weights: readonly Weight[], x: Tensor, results: readonly Tensor[], options: ProductOptions = {}): this {
    const numbers = productNumbers(options, 'linears');
    const alike = new Map<string, { packed: QuantizedTensor[]; results: Tensor[] }>();
    for (const [i, weight] of weights.entries()) {
      const y = results[i]!;
      if (!('layout' in weight)) {
        this.linear(weight, x, y, options);
        continue;
      }
      const { cols, bits, groupSize, kind } = weight.layout;
      const key = [cols, bits, groupSize, kind].join();
      const group = alike.get(key) ?? { packed: [], results: [] };
      alike.set(key, group);
      group.packed.push(weight);
      group.results.push(y);
    }
    for (const { packed, results } of alike.values()) this.#add('lutGemm', [x, ...results], numbers, packed);
    return this;
  }
  /** bound[n,m] >= |y - exact y| of the product of packed weights with x. */
  lutGemmErrorBound(weight: QuantizedTensor, x: Tensor, bound: Tensor, options: ProductOptions = {}): this {
    return this.#add('lutGemmErrorBound', [x, bound], productNumbers(options, 'lutGemmErrorBound'), [weight]);
  }
  /** w[m,k] f32 from packed weights. */
  dequantize(weight: QuantizedTensor, w: Tensor): this {
    return this.#add('dequantize', [w], [], [weight]);
  }
  /** y[n,m] += bias[m]. */
  addBias(y: Tensor, bias: Tensor): this {
    return this.#add('addBias', [y, bias]);
  }
  /** gram[k,k] (f64) += xᵀ·x. */
  accumulateGram(x: Tensor, gram: Tensor): this {
    return this.#add('accumulateGram', [x, gram]);
  }
  /** gram[heads,d,d] (f64) += the products xᵀ·x of every head's d columns of x[n, heads * d]. */
  accumulateHeadGrams(x: Tensor, gram: Tensor): this {
    return this.#add('accumulateHeadGrams', [x, gram]);
  }
  /**
   * gram[count,k,k] (f64) += what the key-value heads from `first` on see of x[n,k]: the sum over their query heads of
   * (A·x)ᵀ·(A·x), A the head's causal attention. q and keys are rotated; the sequence begins with this step.
   */
  accumulateAttendedGrams(
    { q, keys, x }: { q: Tensor; keys: Tensor; x: Tensor },
    { heads, kvHeads, headDim, window }: AttentionOptions,
    first: number,
    gram: Tensor,
  ): this {
    return this.#add('accumulateAttendedGrams', [q, keys, x, gram], [heads, kvHeads, headDim, window, first]);
  }
  /** y[n,d] = table[ids[n]]. */
  embedding(table: Tensor, ids: Tensor, y: Tensor): this {
    return this.#add('embedding', [table, ids, y]);
  }
  /** y = x / sqrt(mean(x²) + epsilon) · weight, row by row; y may be x. */
  rmsNorm(x: Tensor, weight: Tensor, epsilon: number, y: Tensor): this {
    return this.#add('rmsNorm', [x, weight, y], [epsilon]);
  }
  /** Rotates the heads of x in place by the angles of the step's positions (half-split layout). */
  rope(x: Tensor, cosSin: Tensor, headDim: number): this {
    return this.#add('rope', [x, cosSin], [headDim]);
  }
  /** Copies the rows of x into the cache at the step's position. */
  cacheAppend(x: Tensor, cache: Tensor): this {
    return this.#add('cacheAppend', [x, cache]);
  }
  /** Causal grouped-query attention of the step's rows over the cache. */
  attention(q: Tensor, keys: Tensor, values: Tensor, options: AttentionOptions, y: Tensor): this {
    const { heads, kvHeads, headDim, window } = options;
    return this.#add('attention', [q, keys, values, y], [heads, kvHeads, headDim, window]);
  }
  /** y = silu(gate) · up; y may be either. */
  swiglu(gate: Tensor, up: Tensor, y: Tensor): this {
    return this.#add('swiglu', [gate, up, y]);
  }
  /** y += x. */
  add(x: Tensor, y: Tensor): this {
    return this.#add('add', [x, y]);
  }
  /** y = softmax(x) over the last dimension. */
  softmax(x: Tensor, y: Tensor): this {
    return this.#add('softmax', [x, y]);
  }
  /** loss[n] (f64) in nats of target[n] (i32; negative: 0) under logits[n,vocab], and top[n] (i32), the arg-max. */
  crossEntropy(logits: Tensor, target: Tensor, loss: Tensor, top: Tensor): this {
    return this.#add('crossEntropy', [logits, target, loss, top]);
  }
  /** index[n] (i32) of the largest of x[n,m], the lowest on ties, and value[n] (f32), that number; NaN where the row has any. */
  argMax(x: Tensor, index: Tensor, value: Tensor): this {
    return this.#add('argMax', [x, index, value]);
  }
  /** divergence[n] (f64) = KL(softmax(reference) || softmax(logits)), in nats. */
  klDivergence(reference: Tensor, logits: Tensor, divergence: Tensor): this {
    return this.#add('klDivergence', [reference, logits, divergence]);
  }
  /** Converts elements between f32, f16, bf16 and f64, rounding to nearest even. */
  convert(x: Tensor, y: Tensor): this {
    return this.#add('convert', [x, y]);
  }
  /** Of y = x · Wᵀ: dx[n,k] = dy[n,m] · W[m,k], all f32, as every operator of a way back. */
  linearBackwardInput(dy: Tensor, weight: Tensor, dx: Tensor): this {
    return this.#add('linearBackwardInput', [dy, weight, dx]);
  }
  /** dweight[m,k] = dyᵀ · x. */
  linearBackwardWeight(dy: Tensor, x: Tensor, dweight: Tensor): this {
    return this.#add('linearBackwardWeight', [dy, x, dweight]);
  }
  /** Of `rmsNorm` with input x; dx may be dy. */
  rmsNormBackwardInput(x: Tensor, weight: Tensor, epsilon: number, dy: Tensor, dx: Tensor): this {
    return this.#add('rmsNormBackwardInput', [x, weight, dy, dx], [epsilon]);
  }
  rmsNormBackwardWeight(x: Tensor, epsilon: number, dy: Tensor, dweight: Tensor): this {
    return this.#add('rmsNormBackwardWeight', [x, dy, dweight], [epsilon]);
  }
  /** Of `rope`, in place, for a sequence that begins at position 0. */
  ropeBackward(dy: Tensor, cosSin: Tensor, headDim: number): this {
    return this.#add('ropeBackward', [dy, cosSin], [headDim]);
  }
  /** Of `attention` over one whole sequence: keys and values have a row for every row of q, and the position is 0. */
  attentionBackward(
    { q, keys, values }: { q: Tensor; keys: Tensor; values: Tensor },
    options: AttentionOptions,
    dy: Tensor,
    { dq, dkeys, dvalues }: { dq: Tensor; dkeys: Tensor; dvalues: Tensor },
  ): this {
    const { heads, kvHeads, headDim, window } = options;
    const operands = [q, keys, values, dy, dq, dkeys, dvalues];
    return this.#add('attentionBackward', operands, [heads, kvHeads, headDim, window]);
  }
  /** Of `swiglu`; dgate may be dy. */
  swigluBackward(gate: Tensor, up: Tensor, dy: Tensor, dgate: Tensor, dup: Tensor): this {
    return this.#add('swigluBackward', [gate, up, dy, dgate, dup]);
  }
  /** Of the sum of `crossEntropy`'s losses: softmax(logits) minus one at the target; zeros where that is negative. dlogits may be logits. */
  crossEntropyBackward(logits: Tensor, target: Tensor, dlogits: Tensor): this {
    return this.#add('crossEntropyBackward', [logits, target, dlogits]);
  }
  /** sum += x², elementwise. */
  accumulateSquares(x: Tensor, sum: Tensor): this {
    return this.#add('accumulateSquares', [x, sum]);
  }
  /** loss[n] (f64), the mean of (y - target)² over a row, and dy, the derivative of the loss's mean over rows. */
  squaredError(y: Tensor, target: Tensor, loss: Tensor, dy: Tensor): this {
    return this.#add('squaredError', [y, target, loss, dy]);
  }
  /** codes u8 [rows, cols] to the packed tile bytes of `layout`, and back. */
  packCodes(layout: QuantizedLayout, codes: Tensor, packed: Tensor): this {
    return this.#add('packCodes', [codes, packed], layoutNumbers(layout));
  }
  unpackCodes(layout: QuantizedLayout, packed: Tensor, codes: Tensor): this {
    return this.#add('unpackCodes', [packed, codes], layoutNumbers(layout));
  }
  /** Values a group, [rows, groups] or [rows, groups, planes], to tile order, and back. */
  packGroupValues(layout: QuantizedLayout, planes: number, logical: Tensor, tiled: Tensor): this {
    return this.#add('packGroupValues', [logical, tiled], [...layoutNumbers(layout), planes]);
  }
  unpackGroupValues(layout: QuantizedLayout, planes: number, tiled: Tensor, logical: Tensor): this {
    return this.#add('unpackGroupValues', [tiled, logical], [...layoutNumbers(layout), planes]);
  }

  /** Runs on the calling thread and the pool, blocking JavaScript: for steps of a few milliseconds. */
  run(options: RunOptions = {}): void {
    const threads = checkThreads(options.threads ?? 0, 'threads');
    guarded(() => this.#native.run(options.position ?? 0, threads));
  }

  /** Runs off the JavaScript thread. The operands must not be written meanwhile. Rejects with `signal.reason` when aborted. */
  async runAsync(options: RunOptions & { signal?: AbortSignal | undefined } = {}): Promise<void> {
    const { position = 0, threads = 0, signal } = options;
    checkThreads(threads, 'threads');
    await cancellable(signal, (cancel) => this.#native.runAsync(position, threads, cancel));
  }

  /**
   * Gives a tensor that holds nothing yet its memory on the device, zeros, without moving its bytes there; leaves a copy
   * that exists as it is.
   */
  reserve(tensor: Tensor): void {
    guarded(() => this.#native.reserve(tensor.native), 'Program.reserve');
  }

  /** Copies a tensor's bytes to the device, for a program on one. */
  upload(tensor: Tensor): void {
    guarded(() => this.#native.upload(tensor.native), 'Program.upload');
  }

  /**
   * Copies a tensor's bytes back from the device.
   *
   * @throws `LUTRA_E_DEVICE` where it has no copy there, or lost it with a device that failed
   */
  download(tensor: Tensor): void {
    guarded(() => this.#native.download(tensor.native), 'Program.download');
  }

  /** Lets go of the operands. */
  dispose(): void {
    this.#native.dispose();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }

  #add(
    op: keyof typeof opIds,
    tensors: readonly Tensor[],
    parameters: readonly number[] = [],
    packed: readonly QuantizedTensor[] = [],
  ): this {
    guarded(
      () =>
        this.#native.add(
          opIds[op],
          tensors.map((tensor) => tensor.native),
          packed.map((matrix) => matrix.native),
          parameters,
        ),
      op,
    );
    return this;
  }
}

function productNumbers({ mode = 'accurate', batchInvariant = false }: ProductOptions, where: string) {
  const id = modeIds[checkMode(mode, `${where}.mode`)];
  return [id, Number(checkBatchInvariant(batchInvariant, `${where}.batchInvariant`))] as const;
}

function layoutNumbers(layout: QuantizedLayout): number[] {
  const groupSize = layout.groupSize === -1 ? layout.cols : layout.groupSize;
  return [layout.rows, layout.cols, layout.bits, groupSize, weightKindIds[layout.kind], offsetKindIds[layout.offsets]];
}
