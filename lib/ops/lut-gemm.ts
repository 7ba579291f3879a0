import { lutraError } from '../errors.js';
import { addon, cancellable, fromNative, modeIds } from '../native/index.js';
import { QuantizedTensor, Tensor } from '../tensor/index.js';
import { checkOptions, lutGemmAsyncOptions, lutGemmOptions, productOptions } from './options.js';
import { checkBatchInvariant, checkMode, checkThreads, type ProductOptions, Program } from './program.js';

export interface LutGemmOptions extends ProductOptions {
  /** f32 [tokens, outFeatures] that receives the result; a new tensor by default. */
  out?: Tensor | undefined;
  /** Lanes to use at most; the whole pool by default. Never changes the result's bits. */
  threads?: number | undefined;
}

/**
 * y = x · Wᵀ straight on packed weights, by table look-up (LUT-GEMM, arXiv 2206.09557).
 *
 * @param x f32 [tokens, inFeatures] or [inFeatures].
 * @param q packed weights [outFeatures, inFeatures].
 * @returns f32 [tokens, outFeatures], or [outFeatures] for a vector: `options.out` where it was given.
 * @throws `LUTRA_E_SHAPE`, `LUTRA_E_DTYPE`, `LUTRA_E_OPTION`, `LUTRA_E_DISPOSED`
 */
export function lutGemm(x: Tensor, q: QuantizedTensor, options: LutGemmOptions = {}): Tensor {
  checkOptions(options, lutGemmOptions, 'lutGemm');
  const { mode = 'accurate', batchInvariant = false, out, threads = 0 } = options;
  const id = modeIds[checkMode(mode, 'lutGemm.mode')];
  checkBatchInvariant(batchInvariant, 'lutGemm.batchInvariant');
  checkThreads(threads, 'lutGemm.threads');
  checkKinds('lutGemm', x, q, out);
  const y = out ?? Tensor.zeros('f32', resultShape(x.shape, q));
  try {
    addon().lutGemm(q.native, x.native, y.native, id, batchInvariant, threads);
    return y;
  } catch (error) {
    if (!out) y.dispose();
    throw wrongType('lutGemm', x, out) ?? fromNative(error, 'lutGemm');
  }
}

/**
 * As `lutGemm`, off the JavaScript thread. Borrowed inputs are copied in; `out` must be native memory, and holds a part of the
 * result after an abort.
 *
 * @throws as `lutGemm`; the signal's reason after an abort
 */
export async function lutGemmAsync(
  x: Tensor,
  q: QuantizedTensor,
  options: LutGemmOptions & { signal?: AbortSignal | undefined } = {},
): Promise<Tensor> {
  checkOptions(options, lutGemmAsyncOptions, 'lutGemmAsync');
  const { mode = 'accurate', batchInvariant = false, out, threads = 0, signal } = options;
  const id = modeIds[checkMode(mode, 'lutGemmAsync.mode')];
  checkBatchInvariant(batchInvariant, 'lutGemmAsync.batchInvariant');
  checkThreads(threads, 'lutGemmAsync.threads');
  checkKinds('lutGemmAsync', x, q, out);
  if (out?.borrowed)
    throw lutraError('LUTRA_E_OPTION', {
      message: 'an asynchronous call cannot write into a borrowed array',
      where: 'lutGemmAsync.out',
      hint: 'Make the output with Tensor.zeros.',
    });
  const y = out ?? Tensor.zeros('f32', resultShape(x.shape, q));
  const input = x.borrowed ? Tensor.copyOf(x.read(), x.shape, x.dtype) : x;
  try {
    await cancellable(
      signal,
      (cancel) => addon().lutGemmAsync(q.native, input.native, y.native, id, batchInvariant, threads, cancel),
      'lutGemmAsync',
    );
    return y;
  } catch (error) {
    if (!out) y.dispose();
    throw wrongType('lutGemmAsync', x, out) ?? error;
  } finally {
    if (input !== x) input.dispose();
  }
}

/**
 * The worst case of `lutGemm` for this input and these options on this machine: bound[t,m] >= |y - exact y|, as long as sums of
 * activations times weights stay far from the end of fp32: activations beyond about 1e37 may overflow on their way.
 * Same shapes and errors as `lutGemm`.
 */
export function lutGemmErrorBound(x: Tensor, q: QuantizedTensor, options: ProductOptions = {}): Tensor {
  checkOptions(options, productOptions, 'lutGemmErrorBound');
  checkKinds('lutGemmErrorBound', x, q);
  const bound = Tensor.zeros('f32', resultShape(x.shape, q));
  const input = x.borrowed ? Tensor.copyOf(x.read(), x.shape, x.dtype) : x;
  try {
    using program = new Program().lutGemmErrorBound(q, input, bound, options);
    program.run();
    return bound;
  } catch (error) {
    bound.dispose();
    throw wrongType('lutGemmErrorBound', x) ?? error;
  } finally {
    if (input !== x) input.dispose();
  }
}

/** The matrix that packed weights stand for, f32 [outFeatures, inFeatures]. */
export function dequantize(q: QuantizedTensor): Tensor {
  const w = Tensor.zeros('f32', q.shape);
  try {
    using program = new Program().dequantize(q, w);
    program.run();
    return w;
  } catch (error) {
    w.dispose();
    throw error;
  }
}

/** Without types a typed array is easily taken for a tensor. @throws `LUTRA_E_DTYPE` */
export function checkTensor(value: unknown, where: string): void {
  if (value instanceof Tensor) return;
  throw lutraError('LUTRA_E_DTYPE', {
    message: 'a Tensor is needed',
    where,
    found: kindOf(value),
    hint: 'See a typed array as a tensor with Tensor.from.',
  });
}

/** @throws `LUTRA_E_DTYPE` */
export function checkPacked(value: unknown, where: string): void {
  if (value instanceof QuantizedTensor) return;
  throw lutraError('LUTRA_E_DTYPE', {
    message: 'a QuantizedTensor is needed',
    where,
    found: kindOf(value),
    hint: 'Make it with quantize.',
  });
}

/** What a value is, for an error: the name of its class or of its type. */
function kindOf(value: unknown): string {
  if (typeof value !== 'object' || value === null) return value === null ? 'null' : typeof value;
  return value.constructor?.name ?? 'an object';
}

function checkKinds(name: string, x: unknown, q: unknown, out?: unknown): void {
  if (!(x instanceof Tensor)) checkTensor(x, `${name}.x`);
  if (!(q instanceof QuantizedTensor)) checkPacked(q, `${name}.q`);
  if (out !== undefined) checkTensor(out, `${name}.out`);
}

/** Says which operand of a product that failed is of a type that none has; null where both are f32. */
export function wrongType(name: string, x: Tensor, out?: Tensor): Error | null {
  const [operand, what] = x.dtype !== 'f32' ? (['x', x] as const) : (['out', out] as const);
  if (!what || what.dtype === 'f32') return null;
  return lutraError('LUTRA_E_DTYPE', {
    message: 'activations and results are f32',
    where: `${name}.${operand}`,
    found: what.dtype,
    expected: 'f32',
    hint: 'Make it of a Float32Array.',
  });
}

export function resultShape(x: readonly number[], q: QuantizedTensor): number[] {
  return [...x.slice(0, -1), q.layout.rows];
}
