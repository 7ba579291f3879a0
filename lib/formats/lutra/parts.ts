import { codesBytes, dtypeBytes, offsetsElements, scalesElements } from '../../tensor/index.js';
import { dataAlignment, type PlannedTensor, storedDtypes, tensorBytes } from '../safetensors/index.js';
import type { QuantizedEntry } from './quantization-config.js';

/** One stored tensor of a quantized matrix. */
export interface Part {
  /** Name, dtype and stored shape, which is one-dimensional: the tiles of a matrix are not rectangular. */
  readonly stored: PlannedTensor;
  /** Elements that carry values; zeros fill the stored tensor up to a multiple of 64 bytes. */
  readonly elements: number;
  readonly bytes: number;
}

export interface Parts {
  readonly codes: Part;
  /** Called `.alphas` where the kind is planes. */
  readonly scales: Part;
  readonly offsets: Part | null;
  readonly subBranch: SubBranchParts | null;
}

/** A low-rank pair, with scales where its elements are i8. */
export interface SubBranchParts {
  readonly a: Part;
  readonly b: Part;
  readonly aScales: Part | null;
  readonly bScales: Part | null;
}

/** Every name that a part of any matrix may have, behind the stem of `….weight`. */
export const partSuffixes = [
  '.codes',
  '.scales',
  '.alphas',
  '.offsets',
  '.sub_a',
  '.sub_b',
  '.sub_a_scales',
  '.sub_b_scales',
] as const;

export const stemOf = (name: string): string => name.slice(0, -'.weight'.length);

/**
 * The tensors that a quantized matrix is stored as. The size of each is a multiple of 64 bytes, so that parts behind each
 * other are all aligned without gaps, which the container forbids.
 */
export function partsOf(name: string, { layout, scaleDtype, offsetDtype, subBranch }: QuantizedEntry): Parts {
  const stem = stemOf(name);
  const offsets = offsetsElements(layout);
  return {
    codes: part(`${stem}.codes`, 'u8', codesBytes(layout)),
    scales: part(`${stem}.${layout.kind === 'planes' ? 'alphas' : 'scales'}`, scaleDtype, scalesElements(layout)),
    offsets: offsets === 0 ? null : part(`${stem}.offsets`, offsetDtype ?? 'u8', offsets),
    subBranch: subBranch ? subBranchParts(stem, layout, subBranch) : null,
  };
}

function subBranchParts(
  stem: string,
  { rows, cols }: QuantizedEntry['layout'],
  { rank, dtype }: NonNullable<QuantizedEntry['subBranch']>,
): SubBranchParts {
  const scaled = dtype === 'i8';
  return {
    a: part(`${stem}.sub_a`, dtype, rank * cols),
    b: part(`${stem}.sub_b`, dtype, rows * rank),
    aScales: scaled ? part(`${stem}.sub_a_scales`, 'f32', rank) : null,
    bScales: scaled ? part(`${stem}.sub_b_scales`, 'f32', rows) : null,
  };
}

/** Bytes that are stored for a matrix. */
export const bytesOf = (name: string, entry: QuantizedEntry): number =>
  listOf(partsOf(name, entry)).reduce((sum, { bytes }) => sum + bytes, 0);

/** In the order in which they are stored. */
export function listOf({ codes, scales, offsets, subBranch }: Parts): Part[] {
  const { a = null, b = null, aScales = null, bScales = null } = subBranch ?? {};
  return [codes, scales, offsets, a, b, aScales, bScales].filter((part) => part !== null);
}

function part(name: string, dtype: keyof typeof dtypeBytes, elements: number): Part {
  const step = dataAlignment / dtypeBytes[dtype];
  const stored = { name, dtype: storedDtypes[dtype], shape: [Math.ceil(elements / step) * step] };
  return { stored, elements, bytes: tensorBytes(stored.dtype, stored.shape)! };
}
