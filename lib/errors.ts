/** Every code that lutra throws. docs/errors.md says what raises each and what to do. */
export type LutraErrorCode =
  | 'LUTRA_E_NOT_FOUND'
  | 'LUTRA_E_TRUNCATED'
  | 'LUTRA_E_HEADER'
  | 'LUTRA_E_OFFSETS'
  | 'LUTRA_E_DTYPE'
  | 'LUTRA_E_SHAPE'
  | 'LUTRA_E_NON_FINITE'
  | 'LUTRA_E_NOT_POSITIVE_DEFINITE'
  | 'LUTRA_E_STRICT'
  | 'LUTRA_E_METHOD'
  | 'LUTRA_E_BITS'
  | 'LUTRA_E_GROUP_SIZE'
  | 'LUTRA_E_OPTION'
  | 'LUTRA_E_CALIBRATION_TOO_SHORT'
  | 'LUTRA_E_DISK_FULL'
  | 'LUTRA_E_IO'
  | 'LUTRA_E_MEMORY'
  | 'LUTRA_E_SAME_PATH'
  | 'LUTRA_E_EXISTS'
  | 'LUTRA_E_RESUME_MISMATCH'
  | 'LUTRA_E_RESUME_DAMAGED'
  | 'LUTRA_E_UNSUPPORTED_MODEL'
  | 'LUTRA_E_FORMAT_VERSION'
  | 'LUTRA_E_MANIFEST'
  | 'LUTRA_E_INPUT_CHANGED'
  | 'LUTRA_E_NOT_REPEATABLE'
  | 'LUTRA_E_DISPOSED'
  | 'LUTRA_E_DEVICE'
  | 'LUTRA_E_CUDA_NOT_BUILT'
  | 'LUTRA_E_CUDA_OBJECT'
  | 'LUTRA_E_CUDA_ABI'
  | 'LUTRA_E_CUDA_NO_DRIVER'
  | 'LUTRA_E_CUDA_DRIVER'
  | 'LUTRA_E_CUDA_NO_DEVICE'
  | 'LUTRA_E_CUDA_ARCHITECTURE'
  | 'LUTRA_E_CUDA_MEMORY'
  | 'LUTRA_E_NO_BINARY'
  | 'LUTRA_E_INTERNAL';

export interface LutraErrorDetails {
  /** What is wrong, as a sentence without the numbers that `found` and `expected` carry. */
  message: string;
  /** File, tensor, layer or argument that the error is about. */
  where?: string | undefined;
  found?: string | number | undefined;
  expected?: string | number | undefined;
  /** What is wrong one by one, where it is several things: each has a line of its own. */
  items?: readonly string[] | undefined;
  /** What to do about it. */
  hint?: string | undefined;
  cause?: unknown;
}

/** The one error class of the library; subclasses name the family, `code` names the cause. */
export class LutraError extends Error {
  readonly #details: LutraErrorDetails;
  readonly code: LutraErrorCode;
  readonly where: string | undefined;
  readonly found: string | number | undefined;
  readonly expected: string | number | undefined;
  readonly items: readonly string[] | undefined;
  readonly hint: string | undefined;

  constructor(code: LutraErrorCode, details: LutraErrorDetails) {
    super(sentence(details), details.cause === undefined ? undefined : { cause: details.cause });
    this.#details = details;
    this.name = new.target.name;
    this.code = code;
    this.where = details.where;
    this.found = details.found;
    this.expected = details.expected;
    this.items = details.items;
    this.hint = details.hint;
  }

  /** The same error with more to do about it. */
  withHint(more: string): LutraError {
    const { hint } = this;
    return this.#with({ hint: hint ? `${hint} ${more}` : more });
  }

  /** The same error about a place that its reader knows by another name. */
  at(where: string): LutraError {
    return this.#with({ where });
  }

  #with(changed: Partial<LutraErrorDetails>): LutraError {
    const error = lutraError(this.code, { ...this.#details, ...changed });
    if (this.stack) error.stack = this.stack.replace(this.message, () => error.message);
    return error;
  }
}

/** An argument, option or recipe that cannot be used as given. */
export class LutraInputError extends LutraError {}
/** A file whose content is not what its format promises. */
export class LutraFormatError extends LutraError {}
/** Numbers that a computation cannot go on with. */
export class LutraNumericError extends LutraError {}
/** Memory, disk or file system refused. */
export class LutraResourceError extends LutraError {}
/** A device or a binary that is not there. */
export class LutraDeviceError extends LutraError {}
/** A fault of lutra itself. */
export class LutraInternalError extends LutraError {}

const families: Record<LutraErrorCode, typeof LutraError> = {
  LUTRA_E_NOT_FOUND: LutraInputError,
  LUTRA_E_TRUNCATED: LutraFormatError,
  LUTRA_E_HEADER: LutraFormatError,
  LUTRA_E_OFFSETS: LutraFormatError,
  LUTRA_E_DTYPE: LutraInputError,
  LUTRA_E_SHAPE: LutraInputError,
  LUTRA_E_NON_FINITE: LutraNumericError,
  LUTRA_E_NOT_POSITIVE_DEFINITE: LutraNumericError,
  LUTRA_E_STRICT: LutraNumericError,
  LUTRA_E_METHOD: LutraInputError,
  LUTRA_E_BITS: LutraInputError,
  LUTRA_E_GROUP_SIZE: LutraInputError,
  LUTRA_E_OPTION: LutraInputError,
  LUTRA_E_CALIBRATION_TOO_SHORT: LutraInputError,
  LUTRA_E_DISK_FULL: LutraResourceError,
  LUTRA_E_IO: LutraResourceError,
  LUTRA_E_MEMORY: LutraResourceError,
  LUTRA_E_SAME_PATH: LutraInputError,
  LUTRA_E_EXISTS: LutraInputError,
  LUTRA_E_RESUME_MISMATCH: LutraInputError,
  LUTRA_E_RESUME_DAMAGED: LutraFormatError,
  LUTRA_E_UNSUPPORTED_MODEL: LutraInputError,
  LUTRA_E_FORMAT_VERSION: LutraFormatError,
  LUTRA_E_MANIFEST: LutraFormatError,
  LUTRA_E_INPUT_CHANGED: LutraInputError,
  LUTRA_E_NOT_REPEATABLE: LutraInputError,
  LUTRA_E_DISPOSED: LutraInputError,
  LUTRA_E_DEVICE: LutraDeviceError,
  LUTRA_E_CUDA_NOT_BUILT: LutraDeviceError,
  LUTRA_E_CUDA_OBJECT: LutraDeviceError,
  LUTRA_E_CUDA_ABI: LutraDeviceError,
  LUTRA_E_CUDA_NO_DRIVER: LutraDeviceError,
  LUTRA_E_CUDA_DRIVER: LutraDeviceError,
  LUTRA_E_CUDA_NO_DEVICE: LutraDeviceError,
  LUTRA_E_CUDA_ARCHITECTURE: LutraDeviceError,
  LUTRA_E_CUDA_MEMORY: LutraDeviceError,
  LUTRA_E_NO_BINARY: LutraDeviceError,
  LUTRA_E_INTERNAL: LutraInternalError,
};

/** Makes the error of the family that `code` belongs to. */
export function lutraError(code: LutraErrorCode, details: LutraErrorDetails): LutraError {
  return new families[code](code, details);
}

export function isLutraErrorCode(code: unknown): code is LutraErrorCode {
  return typeof code === 'string' && Object.hasOwn(families, code);
}

/** On one line, but for `items`, and each part of bounded length: what comes from files and other libraries is not trusted to be. */
function sentence({ where, message, found, expected, items, hint }: LutraErrorDetails): string {
  let text = where ? `${shown(where)}: ${shown(message)}` : shown(message);
  if (found !== undefined) text += `, found ${shown(found)}`;
  if (expected !== undefined) text += `, expected ${shown(expected)}`;
  if (items?.length) {
    const list = items.map((item) => `\n  ${shown(item)}`).join(';');
    return `${text}:${list}.${hint ? `\n${shown(hint)}` : ''}`;
  }
  return hint ? `${text}. ${shown(hint)}` : text;
}

/** Characters of one part of a message; the error's own fields keep the whole. A path or a command line has room. */
const longestPart = 2000;

function shown(part: string | number): string {
  const text = String(part);
  return onOneLine(text.length > longestPart ? `${text.slice(0, longestPart - 1)}…` : text);
}

/** The text with a blank for every run of blanks that breaks a line. Linear in its length: every run is matched once, as a whole. */
export const onOneLine = (text: string): string =>
  text.replace(/\s+/g, (blanks) => (/[\r\n]/.test(blanks) ? ' ' : blanks));
