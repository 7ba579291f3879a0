import type { Dtype } from '../../tensor/index.js';

/** Bits of one element of every type that safetensors files may hold. */
export const elementBits = {
  BOOL: 8,
  U8: 8,
  I8: 8,
  F8_E5M2: 8,
  F8_E4M3: 8,
  F8_E8M0: 8,
  I16: 16,
  U16: 16,
  F16: 16,
  BF16: 16,
  I32: 32,
  U32: 32,
  F32: 32,
  I64: 64,
  U64: 64,
  F64: 64,
  C64: 64,
  F4: 4,
  F6_E2M3: 6,
  F6_E3M2: 6,
} as const;

export type SafetensorsDtype = keyof typeof elementBits;

/** The types that lutra computes with, by their name in files. Tensors of other types are copied, not loaded. */
export const nativeDtypes: Partial<Record<SafetensorsDtype, Dtype>> = {
  F32: 'f32',
  F16: 'f16',
  BF16: 'bf16',
  F64: 'f64',
  U8: 'u8',
  I32: 'i32',
  I8: 'i8',
};

/** The name in files of a type that lutra computes with. */
export const storedDtypes: Record<Dtype, SafetensorsDtype> = {
  f32: 'F32',
  f16: 'F16',
  bf16: 'BF16',
  f64: 'F64',
  u8: 'U8',
  i32: 'I32',
  i8: 'I8',
};

export function isSafetensorsDtype(name: string): name is SafetensorsDtype {
  return Object.hasOwn(elementBits, name);
}

/** Bytes of a tensor; null where the count overflows 2^53 or does not fill whole bytes. */
export function tensorBytes(dtype: SafetensorsDtype, shape: readonly number[]): number | null {
  let bits: number = elementBits[dtype];
  for (const size of shape) {
    bits *= size;
    if (!Number.isSafeInteger(bits)) return null;
  }
  return bits % 8 === 0 ? bits / 8 : null;
}
