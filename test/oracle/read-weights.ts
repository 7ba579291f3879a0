import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { OracleConfig, OracleTensor } from './llama-oracle.js';

interface Entry {
  dtype: string;
  shape: number[];
  data_offsets: [number, number];
}

/** Reads a well-formed, unsharded Hugging Face directory for the oracle, by nothing of lib/. */
export function readOracleModel(dir: string): { config: OracleConfig; weights: Map<string, OracleTensor> } {
  const config = JSON.parse(readFileSync(join(dir, 'config.json'), 'utf8')) as OracleConfig;
  const file = readFileSync(join(dir, 'model.safetensors'));
  const headerBytes = Number(file.readBigUInt64LE(0));
  const header = JSON.parse(file.toString('utf8', 8, 8 + headerBytes)) as Record<string, Entry>;
  const weights = new Map<string, OracleTensor>();
  for (const [name, entry] of Object.entries(header)) {
    if (name === '__metadata__') continue;
    const [begin, end] = entry.data_offsets;
    const bytes = file.subarray(8 + headerBytes + begin, 8 + headerBytes + end);
    weights.set(name, { shape: entry.shape, data: numbers(entry.dtype, bytes) });
  }
  return { config, weights };
}

function numbers(dtype: string, bytes: Buffer): Float64Array {
  if (dtype === 'F32') return Float64Array.from({ length: bytes.length / 4 }, (_, i) => bytes.readFloatLE(4 * i));
  const decode = { F16: fromHalf, BF16: fromBfloat16 }[dtype];
  if (!decode) throw new Error(`the oracle reads no ${dtype}`);
  return Float64Array.from({ length: bytes.length / 2 }, (_, i) => decode(bytes.readUInt16LE(2 * i)));
}

export function fromHalf(bits: number): number {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >> 10) & 31;
  const fraction = bits & 1023;
  if (exponent === 31) return fraction ? Number.NaN : sign * Number.POSITIVE_INFINITY;
  return sign * (exponent === 0 ? fraction * 2 ** -24 : (1024 + fraction) * 2 ** (exponent - 25));
}

export function fromBfloat16(bits: number): number {
  const view = new DataView(new ArrayBuffer(4));
  view.setUint16(0, bits);
  return view.getFloat32(0);
}
