import { addon, cancellable, taskIds } from '../../native/index.js';
import { Tensor } from '../../tensor/index.js';

/**
 * CRC-32C of bytes that stand behind those whose checksum is `before`, computed off the JavaScript thread; 0 for no bytes.
 * A tensor that borrows its memory, and an array, are copied first.
 */
export async function crc32c(
  bytes: Tensor | Uint8Array,
  before = 0,
  options: { signal?: AbortSignal | undefined } = {},
): Promise<number> {
  if (bytes instanceof Uint8Array || bytes.borrowed) {
    using owned = bytes instanceof Uint8Array ? Tensor.copyOf(bytes) : copyOf(bytes);
    return checksum(owned, before, options.signal);
  }
  return checksum(bytes, before, options.signal);
}

const copyOf = (tensor: Tensor): Tensor => Tensor.copyOf(tensor.read(), tensor.shape, tensor.dtype);

async function checksum(tensor: Tensor, before: number, signal: AbortSignal | undefined): Promise<number> {
  const task = taskIds.crc32c;
  const [sum] = await cancellable(signal, (cancel) => addon().task(task, [tensor.native], [before], 0, cancel));
  return sum!;
}
