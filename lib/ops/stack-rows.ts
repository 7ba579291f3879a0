import { lutraError } from '../errors.js';
import {
  codesBytes,
  type Dtype,
  offsetsElements,
  type QuantizedLayout,
  QuantizedTensor,
  scalesElements,
  Tensor,
} from '../tensor/index.js';
import { checkPacked } from './lut-gemm.js';
import { Program } from './program.js';

/** Rows of a packed tile: matrices of whole tiles stand one behind the other as they are. */
const tileRows = 64;

/**
 * One packed matrix of the rows of several, in their order: q, k and v of a block as one product. A row keeps its bits, and
 * so does its result. The matrices are copied.
 *
 * @throws `LUTRA_E_OPTION` for no matrices and for sub-branches, which would become one of the sum of their ranks;
 *   `LUTRA_E_SHAPE`, `LUTRA_E_DTYPE` where columns, bits, group size, kind, offsets or element types differ, or where
 *   one is no QuantizedTensor; `LUTRA_E_DISPOSED`
 */
export function stackRows(matrices: readonly QuantizedTensor[]): QuantizedTensor {
  if (!Array.isArray(matrices) || matrices.length === 0)
    throw lutraError('LUTRA_E_OPTION', { message: 'an array of packed matrices is needed', where: 'stackRows' });
  const first: QuantizedTensor = matrices[0];
  for (const [i, matrix] of matrices.entries()) {
    checkPacked(matrix, `stackRows[${i}]`);
    checkAlike(first, matrix, `stackRows[${i}]`);
  }
  const layout = { ...first.layout, rows: matrices.reduce((rows, { layout }) => rows + layout.rows, 0) };
  const stack = new Stack(layout, matrices);
  const planes = layout.kind === 'planes' ? layout.bits : 1;
  try {
    return new QuantizedTensor(
      layout,
      stack.codes(),
      stack.values(({ scales }) => scales, scalesElements(layout), planes)!,
      stack.values(({ offsets }) => offsets, offsetsElements(layout), 1),
      { where: 'stackRows' },
    );
  } catch (error) {
    stack.dispose();
    throw error;
  }
}

class Stack {
  readonly #whole: boolean;
  /** What was made so far: nobody else's until the stacked matrix takes it. */
  readonly #made: Tensor[] = [];

  constructor(
    private readonly layout: QuantizedLayout,
    private readonly matrices: readonly QuantizedTensor[],
  ) {
    this.#whole = matrices.slice(0, -1).every(({ layout }) => layout.rows % tileRows === 0);
  }

  codes(): Tensor {
    const { layout, matrices } = this;
    const packed = this.#make('u8', codesBytes(layout));
    if (this.#whole)
      return concatenate(
        packed,
        matrices.map(({ codes }) => codes),
      );
    using logical = Tensor.zeros('u8', [layout.rows, layout.cols]);
    using program = new Program();
    this.#eachRows(logical, (matrix, rows) => program.unpackCodes(matrix.layout, matrix.codes, rows));
    program.packCodes(layout, logical, packed).run();
    return packed;
  }

  /** Values a group: scales, or offsets, which no matrix may have. */
  values(of: (matrix: QuantizedTensor) => Tensor | null, elements: number, planes: number): Tensor | null {
    const { layout, matrices } = this;
    const tensors = matrices.map(of).filter((tensor) => tensor !== null);
    const [first] = tensors;
    if (!first) return null;
    const tiled = this.#make(first.dtype, elements);
    if (this.#whole) return concatenate(tiled, tensors);
    const groups = layout.groupSize === -1 ? 1 : Math.ceil(layout.cols / layout.groupSize);
    using logical = Tensor.zeros(first.dtype, [layout.rows, groups, planes]);
    using program = new Program();
    this.#eachRows(logical, (matrix, rows) => program.unpackGroupValues(matrix.layout, planes, of(matrix)!, rows));
    program.packGroupValues(layout, planes, logical, tiled).run();
    return tiled;
  }

  dispose(): void {
    for (const tensor of this.#made) tensor.dispose();
  }

  #make(dtype: Dtype, elements: number): Tensor {
    const tensor = Tensor.zeros(dtype, [elements]);
    this.#made.push(tensor);
    return tensor;
  }

  /** Calls `body` with every matrix and its rows of the stack. */
  #eachRows(logical: Tensor, body: (matrix: QuantizedTensor, rows: Tensor) => void): void {
    let begin = 0;
    for (const matrix of this.matrices) {
      using rows = logical.rows(begin, begin + matrix.layout.rows);
      body(matrix, rows);
      begin += matrix.layout.rows;
    }
  }
}

function concatenate(whole: Tensor, parts: readonly Tensor[]): Tensor {
  let at = 0;
  for (const part of parts) {
    whole.write(part.read(), at);
    at += part.elements;
  }
  return whole;
}

function checkAlike(first: QuantizedTensor, matrix: QuantizedTensor, where: string): void {
  if (matrix.subBranch)
    throw lutraError('LUTRA_E_OPTION', { message: 'a matrix with a sub-branch cannot be stacked', where });
  const differ = (found: string, expected: string, code: 'LUTRA_E_SHAPE' | 'LUTRA_E_DTYPE') => {
    if (found !== expected) throw lutraError(code, { message: 'the matrices are not alike', where, found, expected });
  };
  const kindOf = ({ layout: { cols, bits, groupSize, kind, offsets } }: QuantizedTensor) =>
    `${cols} columns, ${bits} bits, group ${groupSize}, ${kind}, offsets ${offsets}`;
  const typesOf = ({ scales, offsets }: QuantizedTensor) => `scales ${scales.dtype}, offsets ${offsets?.dtype}`;
  differ(kindOf(matrix), kindOf(first), 'LUTRA_E_SHAPE');
  differ(typesOf(matrix), typesOf(first), 'LUTRA_E_DTYPE');
}
