import { readFileSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

interface Entry {
  dtype: string;
  shape: number[];
  data_offsets: [number, number];
}
type Header = Record<string, Entry>;

/** A query projection and the keys beside it: the tensors that damages are about. */
export const damagedTensor = 'model.layers.0.self_attn.q_proj.weight';
const neighbour = 'model.layers.0.self_attn.k_proj.weight';

/** Ways to damage a model's directory whose weights are F32 in one file, by what an error about it must say. */
export const damages = {
  'a truncated file': (dir: string) => {
    const file = weightsOf(dir);
    truncateSync(file, readFileSync(file).length - 5);
  },
  'a header longer than the file': (dir: string) => {
    const bytes = readFileSync(weightsOf(dir));
    bytes.writeBigUInt64LE(BigInt(bytes.length), 0);
    writeFileSync(weightsOf(dir), bytes);
  },
  'a header that lies about a size': editing((header) => {
    header[damagedTensor]!.shape[0]! *= 2;
  }),
  'overlapping offsets': editing((header) => {
    header[damagedTensor]!.data_offsets = header[neighbour]!.data_offsets;
    header[damagedTensor]!.shape = header[neighbour]!.shape;
  }),
  'offsets out of range': editing((header) => {
    const [begin, end] = header[damagedTensor]!.data_offsets;
    header[damagedTensor]!.data_offsets = [begin + 2 ** 40, end + 2 ** 40];
  }),
  'duplicate keys': editing(
    () => {},
    (text) => text.replaceAll(JSON.stringify(neighbour), JSON.stringify(damagedTensor)),
  ),
  'a type that no weight has': editing((header) => {
    header[damagedTensor]!.dtype = 'I32';
  }),
  'a NaN': poking(Number.NaN),
  'an infinity': poking(Number.NEGATIVE_INFINITY),
  'a config that contradicts the shapes': (dir: string) => editConfig(dir, { num_key_value_heads: 4 }),
  'an architecture that lutra does not know': (dir: string) => editConfig(dir, { model_type: 'gpt2' }),
} satisfies Record<string, (dir: string) => void>;

export type Damage = keyof typeof damages;

const weightsOf = (dir: string) => join(dir, 'model.safetensors');

export function editConfig(dir: string, fields: Record<string, unknown>): void {
  const file = join(dir, 'config.json');
  writeFileSync(file, JSON.stringify({ ...JSON.parse(readFileSync(file, 'utf8')), ...fields }));
}

/** Rewrites the header of the weights in place: as an object, then as text. The data stays as it is. */
function editing(edit: (header: Header) => void, editText = (text: string) => text): (dir: string) => void {
  return (dir) => {
    const { header, data } = parts(dir);
    edit(header);
    const text = Buffer.from(editText(JSON.stringify(header)));
    const length = Buffer.alloc(8);
    length.writeBigUInt64LE(BigInt(text.length));
    writeFileSync(weightsOf(dir), Buffer.concat([length, text, data]));
  };
}

/** Puts one value at index [2, 5] of the tensor. */
function poking(value: number): (dir: string) => void {
  return (dir) => {
    const { header, data, bytes } = parts(dir);
    const { shape, data_offsets } = header[damagedTensor]!;
    data.writeFloatLE(value, data_offsets[0] + 4 * (2 * shape[1]! + 5));
    writeFileSync(weightsOf(dir), bytes);
  };
}

/** `data` shares the memory of `bytes`. */
function parts(dir: string): { header: Header; data: Buffer; bytes: Buffer } {
  const bytes = readFileSync(weightsOf(dir));
  const end = 8 + Number(bytes.readBigUInt64LE(0));
  return { header: JSON.parse(bytes.toString('utf8', 8, end)) as Header, data: bytes.subarray(end), bytes };
}
