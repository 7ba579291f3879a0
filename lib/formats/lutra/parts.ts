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
}

/** Every name that a part of any matrix may have, behind the stem of `….weight`. */
export const partSuffixes = ['.codes', '.scales', '.alphas', '.offsets'] as const;

export const stemOf = (name: string): string => name.slice(0, -'.weight'.length);

/**
 * The tensors that a quantized matrix is stored as. The size of each is a multiple of 64 bytes, so that parts behind each
 * other are all aligned without gaps, which the container forbids.
 */
export function partsOf(name: string, { layout, scaleDtype, offsetDtype }: QuantizedEntry): Parts {
  const stem = stemOf(name);
  const offsets = offsetsElements(layout);
  return {
    codes: part(`${stem}.codes`, 'u8', codesBytes(layout)),
    scales: part(`${stem}.${layout.kind === 'planes' ? 'alphas' : 'scales'}`, scaleDtype, scalesElements(layout)),
    offsets: offsets === 0 ? null : part(`${stem}.offsets`, offsetDtype ?? 'u8', offsets),
  };
}

export const listOf = ({ codes, scales, offsets }: Parts): Part[] =>
  offsets ? [codes, scales, offsets] : [codes, scales];

function part(name: string, dtype: keyof typeof dtypeBytes, elements: number): Part {
  const step = dataAlignment / dtypeBytes[dtype];
  const stored = { name, dtype: storedDtypes[dtype], shape: [Math.ceil(elements / step) * step] };
  return { stored, elements, bytes: tensorBytes(stored.dtype, stored.shape)! };
}
