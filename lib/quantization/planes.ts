import { lutraError } from '../errors.js';
import { checkPacked, checkThreads, Program } from '../ops/index.js';
import { checkLayout, type QuantizedTensor, Tensor } from '../tensor/index.js';
import type { Call } from './method.js';
import { packTensors } from './pack.js';
import { asFloat32, disposeOnFailure, findNonFinite, gridPlanes, largestMagnitude, runOptions } from './passes.js';
import { f16Largest } from './scale-dtype.js';

/** Binary-coding weights as other programs have them: `w = sum_b alpha_b bit_b + offset`, group by group. */
export interface BinaryPlanes {
  /** u8 [outFeatures, inFeatures]: bit b of a code belongs to alpha b. */
  binaryCodes: Tensor;
  /** f16, bf16 or f32 [outFeatures, groups, bits]; codes of -1 and +1 with a have alpha = 2a. */
  alphas: Tensor;
  /** The same type or f32 [outFeatures, groups]; null where it is minus half the sum of the alphas, as -1/+1 codes have it. */
  offsets: Tensor | null;
  /** 16, a multiple of 32, or -1 for the whole row. */
  groupSize: number;
}

export interface PlanesOptions {
  signal?: AbortSignal | undefined;
  /** Lanes to use at most; the whole pool by default. Never changes the result. */
  threads?: number | undefined;
  where?: string | undefined;
}

/**
 * Packs binary codes, alphas and offsets for the kernels. Every number is stored as it is handed over.
 *
 * @returns packed weights in native memory, the caller's to dispose.
 * @throws `LUTRA_E_SHAPE`, `LUTRA_E_DTYPE`, `LUTRA_E_BITS`, `LUTRA_E_GROUP_SIZE`; `LUTRA_E_NON_FINITE` for an alpha or offset
 *   that is none; `LUTRA_E_OPTION` for a code that is too large
 */
export async function packPlanes(planes: BinaryPlanes, options: PlanesOptions = {}): Promise<QuantizedTensor> {
  const call = callOf('packPlanes', options);
  const { binaryCodes, alphas, offsets, groupSize } = planes ?? {};
  for (const [name, tensor] of Object.entries({ binaryCodes, alphas, offsets }))
    if (!(tensor instanceof Tensor || (name === 'offsets' && tensor === null)))
      throw lutraError('LUTRA_E_DTYPE', {
        message: `${name} is no Tensor`,
        where: call.where,
        found: tensor === null ? 'null' : typeof tensor,
        expected: name === 'offsets' ? 'a Tensor or null' : 'a Tensor',
      });
  const [rows = 0, cols = 0] = binaryCodes.shape;
  const [, groups = 0, bits = 0] = alphas.shape;
  if (alphas.shape.length !== 3)
    throw lutraError('LUTRA_E_SHAPE', {
      message: 'alphas must have 3 dimensions',
      where: call.where,
      found: `[${alphas.shape}]`,
      expected: '[outFeatures, groups, bits]',
    });
  const layout = { rows, cols, bits, groupSize, kind: 'planes', offsets: offsets ? 'real' : 'none' } as const;
  checkLayout(layout, call.where);
  requireShape('binaryCodes', binaryCodes, [rows, cols], call);
  requireShape('alphas', alphas, [rows, groupSize === -1 ? 1 : Math.ceil(cols / groupSize), bits], call);
  if (offsets) requireShape('offsets', offsets, [rows, groups], call);
  const owned = [binaryCodes, alphas, offsets ?? alphas].map(ownedBy);
  const [codes, scales, real] = owned as [Tensor, Tensor, Tensor];
  try {
    for (const values of offsets ? [scales, real] : [scales]) await requireFinite(values, call);
    return await packTensors(layout, { codes, scales, offsets: real }, call);
  } finally {
    for (const tensor of owned) if (tensor !== binaryCodes && tensor !== alphas && tensor !== offsets) tensor.dispose();
  }
}

/**
 * The same weights, exactly, as planes: `alpha_b = scale * 2^b`, `offset = -scale * zero`. Alphas keep the scales' type
 * where it holds the largest of them, else they are f32; offsets are f32, or what they were. f32 holds every product of an
 * f16 or bf16 scale and a zero code within its range; the product of an f32 scale can need more bits than it has.
 *
 * @returns packed weights in native memory, the caller's to dispose: a copy where `q` has planes already.
 * @throws `LUTRA_E_DISPOSED`; `LUTRA_E_DTYPE` where `q` is no QuantizedTensor, or where f32 cannot hold an alpha or offset
 *   exactly; `LUTRA_E_OPTION` where `q` has a sub-branch
 */
export async function toPlanes(q: QuantizedTensor, options: PlanesOptions = {}): Promise<QuantizedTensor> {
  const call = callOf('toPlanes', options);
  checkPacked(q, `${call.where}.q`);
  const { layout } = q;
  if (q.subBranch) throw lutraError('LUTRA_E_OPTION', { message: 'a sub-branch would be lost', where: call.where });
  const { rows, cols, bits, groupSize } = layout;
  const perGroup = layout.kind === 'planes' ? bits : 1;
  const groups = groupSize === -1 ? 1 : Math.ceil(cols / groupSize);
  using binaryCodes = Tensor.zeros('u8', [rows, cols]);
  using scales = Tensor.zeros(q.scales.dtype, [rows, groups, perGroup]);
  using offsets = Tensor.zeros(q.offsets?.dtype ?? 'u8', [rows, groups]);
  using program = new Program().unpackCodes(layout, q.codes, binaryCodes);
  program.unpackGroupValues(layout, perGroup, q.scales, scales);
  if (q.offsets) program.unpackGroupValues(layout, 1, q.offsets, offsets);
  await program.runAsync(runOptions(call));
  if (layout.kind === 'planes')
    return await packPlanes({ binaryCodes, alphas: scales, offsets: q.offsets && offsets, groupSize }, options);
  if (layout.offsets === 'none') offsets.fill(2 ** (bits - 1));
  const zeros = layout.offsets === 'real' ? new Float32Array(rows * groups) : new Float32Array(offsets.read());
  using planes = await planesOf(scales, zeros, bits, call);
  const real = layout.offsets === 'real' ? offsets : planes.offsets;
  return await packPlanes({ binaryCodes, alphas: planes.alphas, offsets: real, groupSize }, options);
}

/** `alpha_b = scale * 2^b` in the scales' type or f32, and `offset = -scale * zero` in f32. */
async function planesOf(scales: Tensor, zeros: Float32Array, bits: number, call: Call) {
  const [rows = 0, groups = 0] = scales.shape;
  using stored = scales.reshape([rows, groups]);
  const wide = await asFloat32(stored, call);
  using zeroCodes = Tensor.copyOf(zeros, [rows, groups]);
  const alphas = Tensor.zeros('f32', [rows, groups, bits]);
  const offsets = Tensor.zeros('f32', [rows, groups]);
  try {
    return await disposeOnFailure([alphas, offsets], async () => {
      requireExact(wide, zeros, bits, call);
      await gridPlanes(wide, zeroCodes, { alphas, offsets }, call);
      const largest = (await largestMagnitude(wide, call)) * 2 ** (bits - 1);
      const fits = scales.dtype !== 'f32' && (scales.dtype !== 'f16' || largest <= f16Largest);
      const narrow = fits ? Tensor.zeros(scales.dtype, alphas.shape) : alphas;
      if (narrow !== alphas) {
        using program = new Program().convert(alphas, narrow);
        await disposeOnFailure([narrow], () => program.runAsync(runOptions(call)));
        alphas.dispose();
      }
      const dispose = () => {
        for (const tensor of [narrow, offsets]) tensor.dispose();
      };
      return { alphas: narrow, offsets, [Symbol.dispose]: dispose };
    });
  } finally {
    if (wide !== stored) wide.dispose();
  }
}

/** @throws `LUTRA_E_DTYPE` where f32 cannot hold `scale * zero` or the largest alpha; numbers that are none are not its concern. */
function requireExact(scales: Tensor, zeros: Float32Array, bits: number, { where }: Call): void {
  const isExact = (product: number) => !Number.isFinite(product) || Math.fround(product) === product;
  // Products of 24 and 4 bits are exact in fp64.
  const index = scales.read().findIndex((scale, i) => !isExact(scale * zeros[i]!) || !isExact(scale * 2 ** (bits - 1)));
  if (index < 0) return;
  throw lutraError('LUTRA_E_DTYPE', {
    message: 'f32 cannot hold an alpha or offset of these scales exactly',
    where,
    found: `scale ${scales.read()[index]} of zero code ${zeros[index]}, group ${index}`,
    expected: 'products of scales, powers of two and zero codes that are f32 numbers',
  });
}

function callOf(where: string, options: PlanesOptions): Call {
  checkThreads(options.threads ?? 0, `${where}.threads`);
  return { where: options.where ?? where, signal: options.signal, threads: options.threads };
}

const ownedBy = (x: Tensor): Tensor => (x.borrowed ? Tensor.copyOf(x.read(), x.shape, x.dtype) : x);

function requireShape(name: string, tensor: Tensor, shape: readonly number[], { where }: Call): void {
  if (`${tensor.shape}` === `${shape}`) return;
  throw lutraError('LUTRA_E_SHAPE', {
    message: `${name} does not fit the other operands`,
    where,
    found: `[${tensor.shape}]`,
    expected: `[${shape}]`,
  });
}

async function requireFinite(values: Tensor, call: Call): Promise<void> {
  const index = await findNonFinite(values, call);
  if (index >= 0)
    throw lutraError('LUTRA_E_NON_FINITE', {
      message: 'an alpha or offset is not a finite number',
      where: call.where,
      found: `element ${index}`,
    });
}
