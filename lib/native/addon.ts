/**
 * The typed seam to the addon: every name that native/binding exports, and nothing else.
 * Numbers that stand for enumerations are the constants below; native/binding/ holds their twins.
 */

/** Element types by the number native code knows them by (core/tensor_view.h). */
export const dtypeIds = { f32: 0, f16: 1, bf16: 2, f64: 3, u8: 4, i32: 5, i8: 6 } as const;
export type Dtype = keyof typeof dtypeIds;

/** Weight kinds and offset kinds of a packed matrix (packing/layout.h). */
export const weightKindIds = { uniform: 0, planes: 1 } as const;
export const offsetKindIds = { none: 0, zeroCode: 1, real: 2 } as const;

/** What a group's numbers are (quantize/levels.h), and where BCQ starts (quantize/bcq.h). */
export const levelKindIds = { zeroCode: 0, realOffset: 1, planes: 2, centredPlanes: 3 } as const;
export const bcqStartIds = { greedy: 0, grid: 1, best: 2 } as const;

/** Accuracy modes (ops/lut_gemm.h). */
export const modeIds = { exact: 0, accurate: 1, fast: 2 } as const;

/** Operators that a program records (program/op_table.cc). */
export const opIds = {
  lutGemm: 0,
  lutGemmErrorBound: 1,
  packCodes: 2,
  unpackCodes: 3,
  packGroupValues: 4,
  unpackGroupValues: 5,
  dequantize: 6,
  linear: 7,
  addBias: 8,
  accumulateGram: 9,
  embedding: 10,
  rmsNorm: 11,
  rope: 12,
  cacheAppend: 13,
  attention: 14,
  swiglu: 15,
  add: 16,
  softmax: 17,
  crossEntropy: 18,
  klDivergence: 19,
  convert: 20,
  linearBackwardInput: 21,
  linearBackwardWeight: 22,
  rmsNormBackwardInput: 23,
  rmsNormBackwardWeight: 24,
  ropeBackward: 25,
  attentionBackward: 26,
  swigluBackward: 27,
  squaredError: 28,
  accumulateHeadGrams: 29,
  accumulateAttendedGrams: 30,
  crossEntropyBackward: 31,
  accumulateSquares: 32,
  argMax: 33,
} as const;

/** Calls that answer with numbers and run only asynchronously (binding/tasks.cc). */
export const taskIds = {
  findNonFinite: 0,
  readFile: 1,
  writeFile: 2,
  reverseCholesky: 3,
  gptqPass: 4,
  hessianDiagonal: 5,
  prepareHessian: 6,
  gatherColumns: 7,
  residual: 8,
  sumOfSquares: 9,
  quadraticForm: 10,
  largestMagnitude: 11,
  fitGrid: 12,
  levels: 13,
  centredLevels: 14,
  roundToLevels: 15,
  bcqFit: 16,
  bcqRefit: 17,
  gridPlanes: 18,
  hqqFit: 19,
  fitGridToHessian: 20,
  fitGridWeighted: 21,
  readThrough: 22,
  rotate: 23,
  scaleMatrix: 24,
  roundScaled: 25,
  clipToHessian: 26,
  meanMagnitudes: 27,
  squaredDistance: 28,
  lowRankFit: 29,
  lowRankFitInMetric: 30,
  subtractPair: 31,
  roundRows: 32,
  storeRowsInt8: 33,
  fbquantDescend: 34,
  levelWeights: 35,
  valueGradients: 36,
  adamStep: 37,
  dampedFormRows: 38,
  offsetsOfGrid: 39,
  decoupleqPull: 40,
  decoupleqFit: 41,
  decoupleqSearch: 42,
  takeBetterRows: 43,
  gptqPassWanted: 44,
  gatherRows: 45,
  compensateRows: 46,
  quadraticFormOfHeads: 47,
  refineScales: 48,
  learnRounding: 49,
  gptqDynamicPass: 50,
  decoupleqDescend: 51,
  crc32c: 52,
  weightedSquares: 53,
  quadraticFormRows: 54,
} as const;

/** Memory with an element type and a shape. Rows of a view share the memory of what they were taken from. */
export interface NativeTensor {
  /** Copies elements out of / into native memory; offsets and counts in elements. */
  read(target: ArrayBufferView, offset: number): void;
  write(source: ArrayBufferView, offset: number): void;
  /** The same memory from element `offset` on, seen with another shape. */
  view(offset: number, shape: readonly number[]): NativeTensor;
  fill(value: number): void;
  dispose(): void;
}

/** Codes, scales, offsets and sub-branch of one matrix, checked against each other once. */
export interface NativePacked {
  dispose(): void;
}

/** Activations laid out for several packed matrices. */
export interface NativePrepared {
  update(x: NativeTensor, threads: number): void;
  multiply(index: number, y: NativeTensor, threads: number): void;
  dispose(): void;
}

/** A recorded list of operators with their operands. */
export interface NativeProgram {
  add(
    op: number,
    tensors: readonly NativeTensor[],
    packed: readonly NativePacked[],
    parameters: readonly number[],
  ): void;
  /** Runs every operator in order on the calling thread and the pool. `position` is the step scalar. */
  run(position: number, threads: number): void;
  runAsync(position: number, threads: number, cancel: NativeCancel | null): Promise<void>;
  /** Of a program on a device: the tensor's bytes to their copy there, and back. */
  reserve(tensor: NativeTensor): void;
  upload(tensor: NativeTensor): void;
  download(tensor: NativeTensor): void;
  /** Operators recorded. A method: V8 checks the receiver of methods, not of accessors. */
  length(): number;
  dispose(): void;
}

export interface NativeCancel {
  cancel(): void;
}

/** What multiplies tokens `firstToken` to `lastToken` computed together; without an end where `lastToken` is null. */
export interface LutGemmWay {
  mode: keyof typeof modeIds;
  kind: keyof typeof weightKindIds;
  bits: number;
  firstToken: number;
  lastToken: number | null;
  by: string;
}

export interface Addon {
  Tensor: {
    new (dtype: number, shape: readonly number[]): NativeTensor;
    /** Uses the array's memory in place. Every use checks that the array was not detached. */
    borrow(array: ArrayBufferView, dtype: number, shape: readonly number[]): NativeTensor;
  };
  Packed: {
    /** layout: [rows, cols, bits, groupSize, weightKind, offsetKind]; subBranch: [a, b, aScales, bScales] */
    new (
      codes: NativeTensor,
      scales: NativeTensor,
      offsets: NativeTensor | null,
      layout: readonly number[],
      subBranch: readonly (NativeTensor | null)[] | null,
    ): NativePacked;
  };
  Prepared: {
    new (
      packed: readonly NativePacked[],
      x: NativeTensor,
      mode: number,
      batchInvariant: boolean,
      threads: number,
    ): NativePrepared;
  };
  /** On device number `device` of the CUDA backend at `path` (null: beside the addon), or on the processor. */
  Program: { new (device?: number | null, path?: string | null): NativeProgram };
  Cancel: { new (): NativeCancel };
  lutGemm(
    packed: NativePacked,
    x: NativeTensor,
    y: NativeTensor,
    mode: number,
    batchInvariant: boolean,
    threads: number,
  ): void;
  lutGemmAsync(
    packed: NativePacked,
    x: NativeTensor,
    y: NativeTensor,
    mode: number,
    batchInvariant: boolean,
    threads: number,
    cancel: NativeCancel | null,
  ): Promise<void>;
  /** Runs a task of `taskIds`; resolves with the numbers it answers. */
  task(
    task: number,
    tensors: readonly (NativeTensor | null)[],
    parameters: readonly number[],
    threads: number,
    cancel: NativeCancel | null,
  ): Promise<number[]>;
  /** Bytes of native tensors alive in this process. */
  nativeMemory(): number;
  /** Opens the CUDA backend at `path`, or beside the addon, and asks it about a device. Never throws for what it finds. */
  probeCuda(
    device: number,
    path: string | null,
  ): {
    /** Index into `cudaStates`. */
    state: number;
    path: string;
    detail: string;
    driverVersion: number;
    runtimeVersion: number;
    computeCapability: number;
    memoryBytes: number;
    name: string;
    builtFor: string;
  };
  describe(): {
    isa: string;
    features: number;
    threads: number;
    isaOverrideValid: boolean;
    /** Instruction sets that LUTRA_ISA may name on this architecture. */
    isas: string[];
    kernels: Record<string, string>;
    lutGemm: LutGemmWay[];
  };
}
