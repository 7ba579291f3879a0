import { lutraError } from '../errors.js';
import { Program } from '../ops/index.js';
import {
  codesBytes,
  offsetsElements,
  type QuantizedLayout,
  QuantizedTensor,
  scalesElements,
  Tensor,
} from '../tensor/index.js';
import type { Call, Grid, ScaleDtype } from './method.js';
import { disposeOnFailure, energy, type GridValues, residual, runOptions } from './passes.js';

/** The packed layout of a matrix [rows, cols] on a grid: zero codes are stored unless the grid is symmetric. */
export function layoutOf(grid: Grid, rows: number, cols: number): QuantizedLayout {
  const { bits, groupSize, symmetric } = grid;
  return { rows, cols, bits, groupSize, kind: 'uniform', offsets: symmetric ? 'none' : 'zeroCode' };
}

/**
 * Packs codes, scales and zeros, and checks that what the packed matrix stands for is what the solver meant, bit for bit.
 *
 * @throws `LUTRA_E_INTERNAL` where it is not.
 */
export async function pack(
  solution: GridValues & { codes: Tensor },
  grid: Grid,
  scaleDtype: ScaleDtype,
  call: Call,
): Promise<QuantizedTensor> {
  const [rows, cols] = solution.codes.shape as [number, number];
  const layout = layoutOf(grid, rows, cols);
  const packed = await packedTensors(solution, layout, scaleDtype, call);
  const tensor = new QuantizedTensor(layout, packed.codes, packed.scales, packed.offsets, call.where);
  try {
    await checkSame(tensor, solution, grid, call);
    return tensor;
  } catch (error) {
    tensor.dispose();
    throw error;
  }
}

async function packedTensors(
  { codes, scales, zeros }: GridValues & { codes: Tensor },
  layout: QuantizedLayout,
  scaleDtype: ScaleDtype,
  call: Call,
): Promise<{ codes: Tensor; scales: Tensor; offsets: Tensor | null }> {
  using stored = Tensor.zeros(scaleDtype, scales.shape);
  using zeroCodes = Tensor.copyOf(new Uint8Array(zeros.read()), zeros.shape);
  const packed = {
    codes: Tensor.zeros('u8', [codesBytes(layout)]),
    scales: Tensor.zeros(scaleDtype, [scalesElements(layout)]),
    offsets: layout.offsets === 'none' ? null : Tensor.zeros('u8', [offsetsElements(layout)]),
  };
  using program = new Program().packCodes(layout, codes, packed.codes);
  program.convert(scales, stored).packGroupValues(layout, 1, stored, packed.scales);
  if (packed.offsets) program.packGroupValues(layout, 1, zeroCodes, packed.offsets);
  const made = [packed.codes, packed.scales, ...(packed.offsets ? [packed.offsets] : [])];
  await disposeOnFailure(made, () => program.runAsync(runOptions(call)));
  return packed;
}

/** The packed matrix, unpacked, minus the solver's weights must be zero everywhere. */
async function checkSame(
  tensor: QuantizedTensor,
  solution: GridValues & { codes: Tensor },
  grid: Grid,
  call: Call,
): Promise<void> {
  using unpacked = Tensor.zeros('f32', tensor.shape);
  using program = new Program().dequantize(tensor, unpacked);
  await program.runAsync(runOptions(call));
  using difference = await residual(unpacked, solution, grid, call);
  const distance = await energy(difference, undefined, call);
  if (distance !== 0)
    throw lutraError('LUTRA_E_INTERNAL', {
      message: 'the packed weights are not the weights that the solver chose',
      where: call.where,
      found: distance,
      expected: 0,
    });
}
