import { lutraError } from '../errors.js';
import { Program } from '../ops/index.js';
import {
  codesBytes,
  offsetsElements,
  type QuantizedLayout,
  QuantizedTensor,
  type SubBranch,
  scalesElements,
  Tensor,
} from '../tensor/index.js';
import type { Call, Grid, ScaleDtype, Storage, Values } from './method.js';
import { copyPair } from './pair.js';
import { disposeOnFailure, energy, levelsOf, residual, runOptions } from './passes.js';

/** The packed layout of a matrix [rows, cols]: offsets are stored unless the grid is symmetric. */
export function layoutOf(grid: Grid, storage: Storage, rows: number, cols: number): QuantizedLayout {
  const { bits, groupSize, symmetric } = grid;
  const offsets = symmetric ? 'none' : storage === 'zeroCode' ? 'zeroCode' : 'real';
  return { rows, cols, bits, groupSize, kind: storage === 'planes' ? 'planes' : 'uniform', offsets };
}

/** Codes u8 [m, k] and what they stand for. */
export interface Coded {
  codes: Tensor;
  values: Values;
}

/** What makes a packed matrix. */
export interface Packable {
  grid: Grid;
  scaleDtype: ScaleDtype;
  solution: Coded;
  subBranch: SubBranch | null;
}

/**
 * Packs codes and values, and checks that what the packed matrix stands for is what the solver meant, bit for bit. A pair
 * stands beside them, copied.
 *
 * @throws `LUTRA_E_INTERNAL` where it is not.
 */
export async function pack(solved: Packable, call: Call): Promise<QuantizedTensor> {
  const { grid, scaleDtype, solution: coded, subBranch } = solved;
  const [rows, cols] = coded.codes.shape as [number, number];
  const layout = layoutOf(grid, coded.values.storage, rows, cols);
  const { values } = coded;
  using scales = await storedAs(values.storage === 'planes' ? values.alphas : values.scales, scaleDtype, call);
  using offsets =
    values.storage === 'zeroCode'
      ? Tensor.copyOf(new Uint8Array(values.zeros.read()), values.zeros.shape)
      : await storedAs(values.offsets, scaleDtype, call);
  const tensor = await packTensors(layout, { codes: coded.codes, scales, offsets }, call);
  try {
    await checkSame(tensor, coded, grid, call);
    return subBranch ? tensor.withSubBranch(copyPair(subBranch), call.where) : tensor;
  } catch (error) {
    tensor.dispose();
    throw error;
  }
}

async function storedAs(values: Tensor, dtype: ScaleDtype, call: Call): Promise<Tensor> {
  const stored = Tensor.zeros(dtype, values.shape);
  using program = new Program().convert(values, stored);
  await disposeOnFailure([stored], () => program.runAsync(runOptions(call)));
  return stored;
}

/** Brings codes u8 [m, k] and values in their stored types into tile order. `offsets` is not read where the layout has none. */
export async function packTensors(
  layout: QuantizedLayout,
  { codes, scales, offsets }: { codes: Tensor; scales: Tensor; offsets: Tensor },
  call: Call,
): Promise<QuantizedTensor> {
  const packed = {
    codes: Tensor.zeros('u8', [codesBytes(layout)]),
    scales: Tensor.zeros(scales.dtype, [scalesElements(layout)]),
    offsets: layout.offsets === 'none' ? null : Tensor.zeros(offsets.dtype, [offsetsElements(layout)]),
  };
  const made = [packed.codes, packed.scales, ...(packed.offsets ? [packed.offsets] : [])];
  return await disposeOnFailure(made, async () => {
    using program = new Program().packCodes(layout, codes, packed.codes);
    program.packGroupValues(layout, layout.kind === 'planes' ? layout.bits : 1, scales, packed.scales);
    if (packed.offsets) program.packGroupValues(layout, 1, offsets, packed.offsets);
    await program.runAsync(runOptions(call));
    return new QuantizedTensor(layout, packed.codes, packed.scales, packed.offsets, { where: call.where });
  });
}

/** The packed matrix, unpacked, minus the solver's weights must be zero everywhere. */
async function checkSame(tensor: QuantizedTensor, { codes, values }: Coded, grid: Grid, call: Call): Promise<void> {
  using unpacked = Tensor.zeros('f32', tensor.shape);
  using program = new Program().dequantize(tensor, unpacked);
  await program.runAsync(runOptions(call));
  using levels = await levelsOf(values, grid, call);
  using difference = await residual(unpacked, codes, levels, grid, call);
  const distance = await energy(difference, {}, call);
  if (distance !== 0)
    throw lutraError('LUTRA_E_INTERNAL', {
      message: 'the packed weights are not the weights that the solver chose',
      where: call.where,
      found: distance,
      expected: 0,
    });
}
