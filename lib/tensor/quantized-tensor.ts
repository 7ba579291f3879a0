import { lutraError } from '../errors.js';
import { addon, guarded, type NativePacked, offsetKindIds, weightKindIds } from '../native/index.js';
import { checkSubBranch, completePair, type SubBranch, type SubBranchTensors, subBranchTensors } from './sub-branch.js';
import { type Dtype, Tensor } from './tensor.js';

/** The layout of a packed matrix; docs/format.md gives the bytes, native/packing/layout.h the same in code. */
export interface QuantizedLayout {
  /** Out features, m. */
  rows: number;
  /** In features, k. */
  cols: number;
  bits: number;
  /** Columns a group spans: 16, a multiple of 32, or -1 for the whole row. */
  groupSize: number;
  kind: 'uniform' | 'planes';
  offsets: 'none' | 'zeroCode' | 'real';
}

const rowStep = 16;
const chunkCols = 32;

/** Rows as stored: rounded up to 16. */
const paddedRows = (layout: QuantizedLayout): number => Math.ceil(layout.rows / rowStep) * rowStep;
const groupCount = (layout: QuantizedLayout): number =>
  layout.groupSize === -1 ? 1 : Math.ceil(layout.cols / layout.groupSize);
/** Bytes of the codes: every plane of every chunk of 32 columns holds one 32-bit word a row. */
export const codesBytes = (layout: QuantizedLayout): number =>
  paddedRows(layout) * Math.ceil(layout.cols / chunkCols) * layout.bits * 4;
/** Elements of the scales (uniform) or alphas (planes). */
export const scalesElements = (layout: QuantizedLayout): number =>
  paddedRows(layout) * groupCount(layout) * (layout.kind === 'planes' ? layout.bits : 1);
export const offsetsElements = (layout: QuantizedLayout): number =>
  layout.offsets === 'none' ? 0 : paddedRows(layout) * groupCount(layout);

/** @throws `LUTRA_E_BITS`, `LUTRA_E_GROUP_SIZE`, `LUTRA_E_SHAPE`, `LUTRA_E_OPTION` where a layout is not one that lutra runs. */
export function checkLayout(layout: QuantizedLayout, where: string): void {
  const { rows, cols, bits, groupSize, kind, offsets } = layout;
  if (!Number.isSafeInteger(rows) || !Number.isSafeInteger(cols) || rows < 1 || cols < 1 || rows * cols > 2 ** 48)
    throw lutraError('LUTRA_E_SHAPE', {
      message: 'a packed matrix needs rows and columns',
      where,
      found: `${rows}x${cols}`,
    });
  if (!Number.isInteger(bits) || bits < 2 || bits > 4)
    throw lutraError('LUTRA_E_BITS', {
      message: 'no kernel for this width',
      where,
      found: bits,
      expected: '2, 3 or 4',
    });
  const grouped = groupSize === -1 || groupSize === 16 || (groupSize >= 32 && groupSize % 32 === 0);
  if (!Number.isSafeInteger(groupSize) || !grouped)
    throw lutraError('LUTRA_E_GROUP_SIZE', {
      message: 'unusable group size',
      where,
      found: groupSize,
      expected: '16, a multiple of 32, or -1 for the whole row',
    });
  if (!Object.hasOwn(weightKindIds, kind) || !Object.hasOwn(offsetKindIds, offsets))
    throw lutraError('LUTRA_E_OPTION', { message: 'unknown kind of weights', where, found: `${kind}, ${offsets}` });
  if (kind === 'planes' && offsets === 'zeroCode')
    throw lutraError('LUTRA_E_OPTION', { message: 'zero codes belong to uniform weights', where });
}

/**
 * A packed low-bit matrix in native memory, `w[m,k] = offset[m,g] + sum_b alpha[m,g,b] * bit_b(m,k)` (LUT-GEMM,
 * arXiv 2206.09557), plus B · A where it has a sub-branch (FBQuant, arXiv 2501.16385). Knows no path and no name.
 */
export class QuantizedTensor {
  readonly layout: Readonly<QuantizedLayout>;
  /** u8: the tile's words, little-endian. */
  readonly codes: Tensor;
  /** Scales of a uniform matrix or alphas of a planes matrix, in tile order. */
  readonly scales: Tensor;
  /** u8 zero codes, real offsets in tile order, or null for 'none'. */
  readonly offsets: Tensor | null;
  /** A low-rank pair whose product adds to the packed weights; part of every product. */
  readonly subBranch: SubBranch | null;
  #native: NativePacked | null;

  /** Takes ownership of the tensors. @throws `LUTRA_E_SHAPE` and `LUTRA_E_DTYPE` where they do not fit the layout. */
  constructor(
    layout: QuantizedLayout,
    codes: Tensor,
    scales: Tensor,
    offsets: Tensor | null,
    options: { subBranch?: SubBranchTensors | null | undefined; where?: string | undefined } = {},
  ) {
    const { where = 'QuantizedTensor' } = options;
    const subBranch = options.subBranch ? completePair(options.subBranch) : null;
    checkLayout(layout, where);
    checkOperand(codes, codesBytes(layout), ['u8'], `${where}.codes`);
    checkOperand(scales, scalesElements(layout), ['f16', 'bf16', 'f32'], `${where}.scales`);
    if ((offsets === null) !== (layout.offsets === 'none'))
      throw lutraError('LUTRA_E_SHAPE', { message: `offsets do not fit kind '${layout.offsets}'`, where });
    if (offsets)
      checkOperand(
        offsets,
        offsetsElements(layout),
        layout.offsets === 'zeroCode' ? ['u8'] : ['f16', 'bf16', 'f32'],
        `${where}.offsets`,
      );
    if (subBranch) checkSubBranch(subBranch, layout.rows, layout.cols, `${where}.subBranch`);
    this.layout = { ...layout };
    this.codes = codes;
    this.scales = scales;
    this.offsets = offsets;
    this.subBranch = subBranch;
    const groupSize = layout.groupSize === -1 ? layout.cols : layout.groupSize;
    const numbers = [layout.rows, layout.cols, layout.bits, groupSize];
    numbers.push(weightKindIds[layout.kind], offsetKindIds[layout.offsets]);
    this.#native = guarded(() => {
      const pair = subBranch && [subBranch.a, subBranch.b, subBranch.aScales, subBranch.bScales];
      const natives = pair?.map((tensor) => tensor?.native ?? null) ?? null;
      return new (addon().Packed)(codes.native, scales.native, offsets?.native ?? null, numbers, natives);
    }, where);
  }

  /** The logical shape, [outFeatures, inFeatures]. */
  get shape(): readonly [number, number] {
    return [this.layout.rows, this.layout.cols];
  }
  get byteLength(): number {
    return this.#tensors().reduce((bytes, tensor) => bytes + tensor.byteLength, 0);
  }
  /** 8 · bytes stored / weights, padding, scales, offsets and sub-branch included. */
  get bitsPerWeight(): number {
    return (8 * this.byteLength) / (this.layout.rows * this.layout.cols);
  }
  get scaleDtype(): Dtype {
    return this.scales.dtype;
  }

  /** @throws `LUTRA_E_DISPOSED` */
  get native(): NativePacked {
    if (this.#native === null)
      throw lutraError('LUTRA_E_DISPOSED', { message: 'the quantized tensor was disposed', where: `[${this.shape}]` });
    return this.#native;
  }

  /**
   * The same packed weights with a pair beside them, a [rank, inFeatures] and b [outFeatures, rank]. Takes over the tensors of
   * both; this one is disposed.
   *
   * @throws `LUTRA_E_SHAPE`, `LUTRA_E_DTYPE`, `LUTRA_E_DISPOSED`: both stay as they were
   */
  withSubBranch(subBranch: SubBranchTensors, where = 'withSubBranch'): QuantizedTensor {
    if (!(subBranch?.a instanceof Tensor && subBranch.b instanceof Tensor))
      throw lutraError('LUTRA_E_DTYPE', { message: 'a sub-branch is a pair of Tensors, a and b', where });
    const { layout, codes, scales, offsets } = this;
    const together = new QuantizedTensor(layout, codes, scales, offsets, { subBranch, where });
    this.#native?.dispose();
    this.#native = null;
    return together;
  }

  dispose(): void {
    this.#native?.dispose();
    this.#native = null;
    for (const tensor of this.#tensors()) tensor.dispose();
  }

  #tensors(): Tensor[] {
    const { codes, scales, offsets, subBranch } = this;
    return [codes, scales, ...(offsets ? [offsets] : []), ...(subBranch ? subBranchTensors(subBranch) : [])];
  }

  [Symbol.dispose](): void {
    this.dispose();
  }
}

function checkOperand(tensor: Tensor, count: number, dtypes: readonly Dtype[], where: string): void {
  if (!dtypes.includes(tensor.dtype))
    throw lutraError('LUTRA_E_DTYPE', {
      message: 'wrong element type',
      where,
      found: tensor.dtype,
      expected: dtypes.join(' or '),
    });
  if (tensor.elements !== count)
    throw lutraError('LUTRA_E_SHAPE', {
      message: 'wrong number of elements',
      where,
      found: tensor.elements,
      expected: count,
    });
}
