import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { QuantizedEntry } from '../../../lib/formats/index.js';
import {
  codesBytes,
  type Dtype,
  offsetsElements,
  type QuantizedLayout,
  QuantizedTensor,
  type SubBranch,
  scalesElements,
  Tensor,
} from '../../../lib/tensor/index.js';
import { fileBytes, seeded } from './safetensors-bytes.js';

export interface SourceTensor {
  dtype: 'F32' | 'F16' | 'BF16' | 'U8' | 'I64';
  shape: number[];
}
const widths = { F32: 4, F16: 2, BF16: 2, U8: 1, I64: 8 };

/** A safetensors file with seeded bytes for every tensor. */
export function seededFile(tensors: Record<string, SourceTensor>, seed: number, metadata?: Record<string, string>) {
  const header: Record<string, unknown> = metadata ? { __metadata__: metadata } : {};
  let at = 0;
  for (const [name, { dtype, shape }] of Object.entries(tensors)) {
    const end = at + widths[dtype] * shape.reduce((a, b) => a * b, 1);
    header[name] = { dtype, shape, data_offsets: [at, end] };
    at = end;
  }
  return fileBytes(header, seededBytes(at, seed));
}

export function seededBytes(count: number, seed: number): Uint8Array {
  const random = seeded(seed);
  return Uint8Array.from({ length: count }, () => Math.floor(random() * 256));
}

/** Two ragged matrices, an embedding and a norm: a directory as Hugging Face lays it out. */
export const tinyTensors: Record<string, SourceTensor> = {
  'model.embed_tokens.weight': { dtype: 'F16', shape: [50, 70] },
  'model.layers.0.input_layernorm.weight': { dtype: 'F32', shape: [70] },
  'model.layers.0.self_attn.q_proj.weight': { dtype: 'BF16', shape: [81, 70] },
  'model.layers.0.mlp.up_proj.weight': { dtype: 'BF16', shape: [130, 70] },
  'model.norm.weight': { dtype: 'F32', shape: [70] },
};
export const qProj = 'model.layers.0.self_attn.q_proj.weight';
export const upProj = 'model.layers.0.mlp.up_proj.weight';

export function writeModel(
  directory: string,
  options: { tensors?: Record<string, SourceTensor>; config?: object; files?: Record<string, string> } = {},
): string {
  const { tensors = tinyTensors, config = { model_type: 'llama', tie_word_embeddings: true }, files = {} } = options;
  mkdirSync(directory, { recursive: true });
  writeFileSync(join(directory, 'config.json'), JSON.stringify(config));
  writeFileSync(join(directory, 'model.safetensors'), seededFile(tensors, 5));
  for (const [name, content] of Object.entries(files)) writeFileSync(join(directory, name), content);
  return directory;
}

export function entryOf(
  layout: Partial<QuantizedLayout> = {},
  scaleDtype: Dtype = 'f16',
  subBranch?: QuantizedEntry['subBranch'],
): QuantizedEntry {
  const full = { rows: 81, cols: 70, bits: 3, groupSize: 32, kind: 'uniform', offsets: 'zeroCode', ...layout } as const;
  const entry = { layout: full, scaleDtype, offsetDtype: full.offsets === 'real' ? scaleDtype : null };
  return subBranch ? { ...entry, subBranch } : entry;
}

/** A packed matrix of seeded codes and finite scales and offsets. */
export function seededMatrix(entry: QuantizedEntry, seed: number): QuantizedTensor {
  const { layout, scaleDtype, offsetDtype } = entry;
  const subBranch = seededPair(entry, seed + 3);
  const codes = Tensor.copyOf(seededBytes(codesBytes(layout), seed));
  const scales = finite(scaleDtype, scalesElements(layout), seed + 1);
  const count = offsetsElements(layout);
  if (count === 0) return new QuantizedTensor(layout, codes, scales, null, { subBranch });
  const offsets = offsetDtype ? finite(offsetDtype, count, seed + 2) : Tensor.copyOf(seededBytes(count, seed + 2));
  return new QuantizedTensor(layout, codes, scales, offsets, { subBranch });
}

function seededPair({ layout, subBranch }: QuantizedEntry, seed: number): SubBranch | null {
  if (!subBranch) return null;
  const { rank, dtype } = subBranch;
  const matrix = (rows: number, cols: number, at: number) => {
    if (dtype !== 'i8') return finite(dtype, rows * cols, at).reshape([rows, cols]);
    return Tensor.copyOf(Int8Array.from(seededBytes(rows * cols, at)), [rows, cols]);
  };
  const scales = (rows: number, at: number) => (dtype === 'i8' ? finite('f32', rows, at) : null);
  return {
    a: matrix(rank, layout.cols, seed),
    b: matrix(layout.rows, rank, seed + 1),
    aScales: scales(rank, seed + 2),
    bScales: scales(layout.rows, seed + 3),
  };
}

function finite(dtype: Dtype, count: number, seed: number): Tensor {
  const random = seeded(seed);
  if (dtype === 'f32') return Tensor.copyOf(Float32Array.from({ length: count }, () => random() - 0.5));
  // Bits below the exponent of all ones, of either sign.
  const bits = Uint16Array.from({ length: count }, () => Math.floor(random() * 0x7000) | (random() < 0.5 ? 0x8000 : 0));
  return Tensor.copyOf(bits, [count], dtype);
}

export function bytesOf(tensor: Tensor | null): string | null {
  if (!tensor) return null;
  const values = tensor.read();
  return Buffer.from(values.buffer, values.byteOffset, values.byteLength).toString('hex');
}

/** Everything that a packed matrix consists of, to compare two. */
export const contentOf = (q: QuantizedTensor) => ({
  layout: q.layout,
  codes: bytesOf(q.codes),
  scales: bytesOf(q.scales),
  offsets: bytesOf(q.offsets),
  dtypes: [q.scales.dtype, q.offsets?.dtype],
  subBranch: q.subBranch && {
    shape: [q.subBranch.a.dtype, ...q.subBranch.a.shape, ...q.subBranch.b.shape],
    a: bytesOf(q.subBranch.a),
    b: bytesOf(q.subBranch.b),
    aScales: bytesOf(q.subBranch.aScales),
    bScales: bytesOf(q.subBranch.bScales),
  },
});
export const recipe = {
  transforms: [],
  solver: { method: 'rtn' },
  grid: { bits: 3, groupSize: 32, symmetric: false },
  finetune: [],
  lowRank: null,
  overrides: [],
};
