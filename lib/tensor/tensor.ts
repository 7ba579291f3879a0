import { lutraError } from '../errors.js';
import { addon, type Dtype, dtypeIds, guarded, type NativeTensor } from '../native/index.js';

export type { Dtype };

/** The typed array that holds elements of a dtype in JavaScript; f16 and bf16 travel as their 16 bits. */
export type TensorData = Float32Array | Float64Array | Uint16Array | Uint8Array | Int8Array | Int32Array;

const arrays = {
  f32: Float32Array,
  f64: Float64Array,
  f16: Uint16Array,
  bf16: Uint16Array,
  u8: Uint8Array,
  i8: Int8Array,
  i32: Int32Array,
} as const;

/** Bytes of one element. */
export const dtypeBytes: Record<Dtype, number> = { f32: 4, f16: 2, bf16: 2, f64: 8, u8: 1, i8: 1, i32: 4 };

/** At most four dimensions, as native code has them. */
const maxRank = 4;

/**
 * A dense, row-major tensor. Results of lutra own native memory outside the JavaScript heap: call `dispose()` (or declare
 * with `using`) to give it back at once; garbage collection is the safety net. Not transferable between threads.
 */
export class Tensor {
  readonly dtype: Dtype;
  readonly shape: readonly number[];
  #native: NativeTensor | null;
  /** Set where the memory is a caller's typed array. */
  readonly borrowed: boolean;

  private constructor(native: NativeTensor, dtype: Dtype, shape: readonly number[], borrowed: boolean) {
    this.#native = native;
    this.dtype = dtype;
    this.shape = shape;
    this.borrowed = borrowed;
  }

  /** A tensor of native memory whose elements are zero. @throws `LUTRA_E_DTYPE`, `LUTRA_E_SHAPE`, `LUTRA_E_MEMORY` */
  static zeros(dtype: Dtype, shape: readonly number[]): Tensor {
    if (!Object.hasOwn(dtypeIds, dtype))
      throw lutraError('LUTRA_E_DTYPE', {
        message: 'no such element type',
        where: 'Tensor.zeros',
        found: String(dtype),
        expected: Object.keys(dtypeIds).join(', '),
      });
    checkShape(shape);
    const native = guarded(() => new (addon().Tensor)(dtypeIds[dtype], shape), 'Tensor.zeros');
    return new Tensor(native, dtype, [...shape], false);
  }

  /**
   * Sees a typed array as a tensor, without a copy. The array must stay attached while the tensor is used;
   * asynchronous calls copy it in. A Uint16Array needs `dtype` 'f16' or 'bf16'.
   *
   * @throws `LUTRA_E_SHAPE` where the shape does not fit the array; `LUTRA_E_DTYPE` where the dtype does not, and for
   *   arrays over shared or resizable buffers.
   */
  static from(data: TensorData, shape: readonly number[] = [data.length], dtype: Dtype = dtypeOf(data)): Tensor {
    checkShape(shape);
    if (arrays[dtype] !== data.constructor)
      throw lutraError('LUTRA_E_DTYPE', {
        message: `a ${data.constructor.name} does not hold ${dtype}`,
        where: 'Tensor.from',
        expected: arrays[dtype]?.name,
      });
    const { buffer } = data;
    if (!(buffer instanceof ArrayBuffer) || (buffer as { resizable?: boolean }).resizable)
      throw lutraError('LUTRA_E_DTYPE', {
        message: 'shared and resizable buffers cannot be used as tensors',
        where: 'Tensor.from',
        hint: 'Copy the data into a typed array of its own first.',
      });
    if (elements(shape) !== data.length)
      throw lutraError('LUTRA_E_SHAPE', {
        message: `shape [${shape}] does not fit the array`,
        where: 'Tensor.from',
        found: data.length,
        expected: elements(shape),
      });
    const native = guarded(() => addon().Tensor.borrow(data, dtypeIds[dtype], shape), 'Tensor.from');
    return new Tensor(native, dtype, [...shape], true);
  }

  /** A tensor of native memory with a copy of the array's elements. Same arguments and errors as `from`. */
  static copyOf(data: TensorData, shape: readonly number[] = [data.length], dtype: Dtype = dtypeOf(data)): Tensor {
    Tensor.from(data, shape, dtype).dispose();
    const tensor = Tensor.zeros(dtype, shape);
    tensor.write(data);
    return tensor;
  }

  get elements(): number {
    return elements(this.shape);
  }
  get byteLength(): number {
    return this.elements * dtypeBytes[this.dtype];
  }
  get disposed(): boolean {
    return this.#native === null;
  }
  /** Where the tensor lives; this version knows the processor only. */
  get device(): 'cpu' {
    return 'cpu';
  }

  /** The native object behind the tensor. @throws `LUTRA_E_DISPOSED` */
  get native(): NativeTensor {
    if (this.#native === null)
      throw lutraError('LUTRA_E_DISPOSED', { message: 'the tensor was disposed', where: `Tensor [${this.shape}]` });
    return this.#native;
  }

  /** Copies `count` elements from element `offset` on into a new typed array. */
  read(offset = 0, count = this.elements - offset): TensorData {
    if (!(offset >= 0 && count >= 0 && offset + count <= this.elements))
      throw lutraError('LUTRA_E_SHAPE', {
        message: `cannot read ${count} elements from ${offset} on`,
        where: `Tensor [${this.shape}]`,
        expected: `at most ${this.elements}`,
      });
    const target = new arrays[this.dtype](count);
    guarded(() => this.native.read(target, offset), 'Tensor.read');
    return target;
  }

  /** Copies an array of the tensor's own element type over the elements from `offset` on. */
  write(data: TensorData, offset = 0): void {
    if (data.constructor !== arrays[this.dtype])
      throw lutraError('LUTRA_E_DTYPE', {
        message: `a ${data.constructor.name} does not hold ${this.dtype}`,
        where: 'Tensor.write',
        expected: arrays[this.dtype].name,
      });
    if (!(offset >= 0 && offset + data.length <= this.elements))
      throw lutraError('LUTRA_E_SHAPE', {
        message: `cannot write ${data.length} elements from ${offset} on`,
        where: `Tensor [${this.shape}]`,
        expected: `at most ${this.elements}`,
      });
    guarded(() => this.native.write(data, offset), 'Tensor.write');
  }

  fill(value: number): void {
    guarded(() => this.native.fill(value), 'Tensor.fill');
  }

  /** Rows `begin` to `end` of the first dimension, on the same memory. Stays valid when this tensor is disposed. */
  rows(begin: number, end: number): Tensor {
    const [first = 0, ...rest] = this.shape;
    if (!(begin >= 0 && begin <= end && end <= first))
      throw lutraError('LUTRA_E_SHAPE', {
        message: `no rows ${begin} to ${end}`,
        where: `Tensor [${this.shape}]`,
        expected: `0 to ${first}`,
      });
    return this.viewOf(begin * elements(rest), [end - begin, ...rest]);
  }

  /** The same elements with another shape. */
  reshape(shape: readonly number[]): Tensor {
    checkShape(shape);
    if (elements(shape) !== this.elements)
      throw lutraError('LUTRA_E_SHAPE', {
        message: `cannot reshape [${this.shape}] to [${shape}]`,
        found: elements(shape),
        expected: this.elements,
      });
    return this.viewOf(0, shape);
  }

  private viewOf(offset: number, shape: readonly number[]): Tensor {
    const native = guarded(() => this.native.view(offset, shape), 'Tensor.view');
    return new Tensor(native, this.dtype, [...shape], this.borrowed);
  }

  /** Gives the memory back when running calls and views end. Idempotent; any later use throws `LUTRA_E_DISPOSED`. */
  dispose(): void {
    this.#native?.dispose();
    this.#native = null;
  }

  [Symbol.dispose](): void {
    this.dispose();
  }
}

export function elements(shape: readonly number[]): number {
  return shape.reduce((product, n) => product * n, 1);
}

function dtypeOf(data: TensorData): Dtype {
  if (data instanceof Float32Array) return 'f32';
  if (data instanceof Float64Array) return 'f64';
  if (data instanceof Uint8Array) return 'u8';
  if (data instanceof Int8Array) return 'i8';
  if (data instanceof Int32Array) return 'i32';
  if (!((data as unknown) instanceof Uint16Array))
    throw lutraError('LUTRA_E_DTYPE', {
      message: 'a tensor is made from a typed array',
      where: 'Tensor.from',
      expected: [...new Set(Object.values(arrays).map(({ name }) => name))].join(', '),
    });
  throw lutraError('LUTRA_E_DTYPE', {
    message: 'a Uint16Array holds f16 or bf16: say which',
    where: 'Tensor.from',
    hint: "Pass the dtype as the third argument, for example Tensor.from(data, shape, 'f16').",
  });
}

function checkShape(shape: readonly number[]): void {
  const fits = Array.isArray(shape) && shape.length >= 1 && shape.length <= maxRank;
  const whole = fits && shape.every((n) => Number.isSafeInteger(n) && n >= 0);
  if (whole && Number.isSafeInteger(elements(shape) * 8)) return;
  throw lutraError('LUTRA_E_SHAPE', {
    message: whole ? 'the shape is too large' : 'a shape is one to four whole numbers',
    found: Array.isArray(shape) ? `[${shape}]` : String(shape),
    expected: whole ? `at most ${2 ** 50 - 1} elements` : undefined,
  });
}
