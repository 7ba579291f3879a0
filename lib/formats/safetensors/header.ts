import { lutraError } from '../../errors.js';
import type { ReadLimits } from '../limits.js';
import { truncated } from '../open-file.js';
import { decodeUtf8, JsonReader, quoted } from '../strict-json.js';
import { elementBits, isSafetensorsDtype, type SafetensorsDtype, tensorBytes } from './dtypes.js';

/** The header's length stands in front of it, as an unsigned 64-bit little-endian number. */
export const lengthBytes = 8;

/** One tensor as a header declares it. */
export interface TensorEntry {
  readonly name: string;
  readonly dtype: SafetensorsDtype;
  readonly shape: readonly number[];
  /** The file that holds the data, and the bytes `begin` to `end` of it. */
  readonly file: string;
  readonly begin: number;
  readonly end: number;
}

export interface Header {
  /** In the order of their data, which fills the rest of the file without a gap. */
  entries: TensorEntry[];
  metadata: Map<string, string>;
}

/** The header's length from a file's first 8 bytes. @throws `LUTRA_E_HEADER` over the limit, `LUTRA_E_TRUNCATED` over the file */
export function headerLength(prefix: Uint8Array, file: string, fileBytes: number, limits: ReadLimits): number {
  if (prefix.length < lengthBytes) throw truncated(file, prefix.length, lengthBytes);
  const length = new DataView(prefix.buffer, prefix.byteOffset).getBigUint64(0, true);
  const other = otherFormat(prefix);
  if (length > BigInt(limits.headerBytes) && other)
    throw lutraError('LUTRA_E_HEADER', {
      message: `this is no safetensors file but ${other.name}`,
      where: file,
      hint: other.hint,
    });
  if (length > BigInt(limits.headerBytes))
    throw lutraError('LUTRA_E_HEADER', {
      message: 'the header declares more bytes than it may have',
      where: `${file} at byte 0`,
      found: `${length}`,
      expected: `at most ${limits.headerBytes}`,
      hint: 'Is it a safetensors file? If it is, and you trust it, raise limits.headerBytes.',
    });
  const end = lengthBytes + Number(length);
  if (end > fileBytes) throw truncated(file, fileBytes, end);
  return Number(length);
}

/** What else people have their weights in, by the first bytes. Any of them would be a header of terabytes. */
function otherFormat(prefix: Uint8Array): { name: string; hint: string } | null {
  const [first, second] = prefix;
  const letters = Buffer.from(prefix.subarray(0, 4)).toString('latin1');
  const pickle = letters === 'PK\x03\x04' || (first === 0x80 && second! >= 2 && second! <= 5);
  if (pickle)
    return {
      name: 'a pickle of PyTorch',
      hint: 'lutra reads no pickle: loading one runs what it says. Save the model again with safe_serialization=True.',
    };
  if (letters === 'GGUF')
    return {
      name: 'a GGUF file',
      hint: 'lutra does not read GGUF: start from the original checkpoint in safetensors.',
    };
  if (letters === 'vers')
    return {
      name: 'a pointer of Git LFS to one',
      hint: 'Fetch what it points to: git lfs pull, in the directory of the model.',
    };
  return null;
}

/**
 * Parses and checks a header against the size of its file: names, types, shapes and offsets; data that overlaps, leaves
 * gaps or does not end with the file is refused.
 *
 * @throws `LUTRA_E_HEADER`, `LUTRA_E_DTYPE`, `LUTRA_E_OFFSETS`, `LUTRA_E_TRUNCATED`
 */
export function parseHeader(bytes: Uint8Array, file: string, fileBytes: number, limits: ReadLimits): Header {
  const dataBegin = lengthBytes + bytes.length;
  const json = new JsonReader(decodeUtf8(bytes, `${file} at byte ${lengthBytes}`), file, limits, lengthBytes);
  if (bytes[0] !== 0x7b) throw json.fail("the header does not begin with '{'");
  const entries: TensorEntry[] = [];
  let metadata = new Map<string, string>();
  json.object((name) => {
    if (name === '__metadata__') {
      metadata = parseMetadata(json, limits);
      return;
    }
    if (entries.length === limits.tensors)
      throw json.fail('the file holds too many tensors', undefined, `at most ${limits.tensors}`);
    entries.push(parseEntry(json, name, file, dataBegin, limits));
  });
  json.end();
  entries.sort((a, b) => a.begin - b.begin || a.end - b.end);
  checkCoverage(entries, file, dataBegin, fileBytes);
  return { entries, metadata };
}

function parseMetadata(json: JsonReader, limits: ReadLimits): Map<string, string> {
  const metadata = new Map<string, string>();
  let length = 0;
  json.object((key) => {
    const value = json.string(limits.metadataLength);
    length += key.length + value.length;
    if (length > limits.metadataLength)
      throw json.fail('__metadata__ is too long', undefined, `at most ${limits.metadataLength} characters`);
    metadata.set(key, value);
  });
  return metadata;
}

function parseEntry(json: JsonReader, name: string, file: string, dataBegin: number, limits: ReadLimits): TensorEntry {
  let dtype: SafetensorsDtype | undefined;
  let shape: number[] | undefined;
  let offsets: number[] | undefined;
  json.object((key) => {
    if (key === 'dtype') dtype = parseDtype(json, name, file);
    else if (key === 'shape') shape = wholeNumbers(json, limits.dimensions, `tensor ${quoted(name)}: shape`);
    else if (key === 'data_offsets') offsets = wholeNumbers(json, 2, `tensor ${quoted(name)}: data_offsets`);
    else throw json.fail(`tensor ${quoted(name)}: unknown field ${quoted(key)}`);
  });
  const [begin, end] = offsets ?? [];
  if (dtype === undefined || shape === undefined || begin === undefined || end === undefined)
    throw json.fail(`tensor ${quoted(name)} lacks one of dtype, shape and two data_offsets`);
  const where = tensorPlace(file, name, dataBegin + begin);
  if (begin > end)
    throw lutraError('LUTRA_E_OFFSETS', {
      message: 'the data ends before it begins',
      where,
      found: `${begin}, ${end}`,
    });
  const expected = tensorBytes(dtype, shape);
  if (expected === null)
    throw lutraError('LUTRA_E_OFFSETS', {
      message: `no number of bytes holds ${dtype} [${shape}]`,
      where,
      expected: `a whole number of bytes below 2^50 from ${elementBits[dtype]} bits an element`,
    });
  if (end - begin !== expected)
    throw lutraError('LUTRA_E_OFFSETS', {
      message: `the data's length does not fit ${dtype} [${shape}]`,
      where,
      found: `${end - begin} bytes`,
      expected: `${expected} bytes`,
    });
  return { name, dtype, shape, file, begin: dataBegin + begin, end: dataBegin + end };
}

function parseDtype(json: JsonReader, name: string, file: string): SafetensorsDtype {
  const dtype = json.string();
  if (isSafetensorsDtype(dtype)) return dtype;
  throw lutraError('LUTRA_E_DTYPE', {
    message: 'unknown element type',
    where: `${file}, tensor ${quoted(name)}`,
    found: quoted(dtype),
    expected: `one of ${Object.keys(elementBits).join(', ')}`,
  });
}

function wholeNumbers(json: JsonReader, limit: number, what: string): number[] {
  const numbers: number[] = [];
  json.array((index) => {
    if (index === limit) throw json.fail(`${what} is too long`, undefined, `at most ${limit} numbers`);
    numbers.push(json.wholeNumber());
  });
  return numbers;
}

/** Sorted data must cover the bytes from the header to the end of the file once each. */
function checkCoverage(entries: readonly TensorEntry[], file: string, dataBegin: number, fileBytes: number): void {
  let covered = dataBegin;
  for (const { name, begin, end } of entries) {
    if (begin !== covered)
      throw lutraError('LUTRA_E_OFFSETS', {
        message: begin < covered ? "the data overlaps another tensor's" : 'bytes before the data belong to no tensor',
        where: tensorPlace(file, name, begin),
        found: begin,
        expected: covered,
      });
    covered = end;
  }
  if (covered > fileBytes) throw truncated(file, fileBytes, covered);
  if (covered < fileBytes)
    throw lutraError('LUTRA_E_OFFSETS', {
      message: 'bytes behind the last tensor belong to no tensor',
      where: `${file} at byte ${covered}`,
      found: fileBytes,
      expected: covered,
    });
}

const tensorPlace = (file: string, name: string, byte: number): string =>
  `${file}, tensor ${quoted(name)} at byte ${byte}`;
