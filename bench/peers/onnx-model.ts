/**
 * Writes the one ONNX model that the peer needs, y = x · Wᵀ as a MatMulNBits node (operator domain com.microsoft), in the
 * wire format of protocol buffers. Numbers in the functions below are field numbers of onnx.proto.
 */

/** A quantized matrix as MatMulNBits stores it. */
export interface NBitsMatrix {
  rows: number;
  cols: number;
  bits: number;
  blockSize: number;
  /** [rows, blocks, blockSize * bits / 8], the lowest bits of a byte first. */
  codes: Uint8Array;
  /** [rows, blocks]; a weight is (code - 2^(bits - 1)) * scale. */
  scales: Float32Array;
}

const float = 1;
const uint8 = 2;

function varint(value: number): Buffer {
  const bytes: number[] = [];
  let rest = value;
  for (; rest > 127; rest = Math.floor(rest / 128)) bytes.push((rest % 128) + 128);
  return Buffer.from([...bytes, rest]);
}

const whole = (field: number, value: number) => Buffer.concat([varint(field * 8), varint(value)]);
const bytes = (field: number, ...parts: Uint8Array[]) => {
  const length = parts.reduce((sum, part) => sum + part.length, 0);
  return Buffer.concat([varint(field * 8 + 2), varint(length), ...parts]);
};
const text = (field: number, value: string) => bytes(field, Buffer.from(value));

const attribute = (name: string, value: number) => bytes(5, text(1, name), whole(3, value), whole(20, 2));

const initializer = (name: string, type: number, shape: number[], data: ArrayBufferView) => {
  const raw = Buffer.from(data.buffer, data.byteOffset, data.byteLength);
  return bytes(5, ...shape.map((size) => whole(1, size)), whole(2, type), text(8, name), bytes(9, raw));
};

/** An input or output, f32 [tokens, columns] with any number of tokens. */
function value(field: number, name: string, columns: number): Buffer {
  const shape = bytes(2, bytes(1, text(2, 'tokens')), bytes(1, whole(1, columns)));
  return bytes(field, text(1, name), bytes(2, bytes(1, whole(1, float), shape)));
}

/** The model with input `x` and output `y`. */
export function nBitsModel(matrix: NBitsMatrix, accuracyLevel: number): Uint8Array {
  const { rows, cols, bits, blockSize } = matrix;
  const blocks = cols / blockSize;
  const node = bytes(
    1,
    ...['x', 'codes', 'scales'].map((name) => text(1, name)),
    text(2, 'y'),
    text(4, 'MatMulNBits'),
    attribute('K', cols),
    attribute('N', rows),
    attribute('bits', bits),
    attribute('block_size', blockSize),
    attribute('accuracy_level', accuracyLevel),
    text(7, 'com.microsoft'),
  );
  const graph = bytes(
    7,
    node,
    text(2, 'product'),
    initializer('codes', uint8, [rows, blocks, (blockSize * bits) / 8], matrix.codes),
    initializer('scales', float, [rows * blocks], matrix.scales),
    value(11, 'x', cols),
    value(12, 'y', rows),
  );
  const operators = (domain: string, version: number) => bytes(8, text(1, domain), whole(2, version));
  return Buffer.concat([whole(1, 10), graph, operators('', 21), operators('com.microsoft', 1)]);
}
