import { LutraError, type LutraErrorCode, lutraError } from '../errors.js';

const codes: Record<string, LutraErrorCode> = {
  ENOENT: 'LUTRA_E_NOT_FOUND',
  ENOTDIR: 'LUTRA_E_NOT_FOUND',
  EEXIST: 'LUTRA_E_EXISTS',
  ENOTEMPTY: 'LUTRA_E_EXISTS',
  ENOSPC: 'LUTRA_E_DISK_FULL',
  EDQUOT: 'LUTRA_E_DISK_FULL',
};

/** Turns an error of the file system into a LutraError about `where`; every other error passes unchanged. */
export function fromSystem(error: unknown, where: string): unknown {
  if (!(error instanceof Error) || error instanceof LutraError) return error;
  const { code, syscall } = error as NodeJS.ErrnoException;
  if (typeof code !== 'string' || typeof syscall !== 'string') return error;
  const kind = codes[code] ?? 'LUTRA_E_IO';
  return lutraError(kind, {
    message: sentences[kind] ?? words[code] ?? 'the file system refused',
    where,
    found: code,
    hint: kind === 'LUTRA_E_DISK_FULL' ? 'Make room on it.' : undefined,
    cause: error,
  });
}

const sentences: Partial<Record<LutraErrorCode, string>> = {
  LUTRA_E_NOT_FOUND: 'there is no such file or directory',
  LUTRA_E_EXISTS: 'it exists already',
  LUTRA_E_DISK_FULL: 'the disk is full',
};

const words: Readonly<Record<string, string>> = {
  EACCES: 'permission is denied',
  EPERM: 'the operation is not permitted',
  EROFS: 'the file system is read-only',
  EISDIR: 'it is a directory',
  ELOOP: 'symbolic links lead in a circle',
  ENAMETOOLONG: 'the name is too long',
  EMFILE: 'the process has too many files open',
  ENFILE: 'the system has too many files open',
  EIO: 'the disk failed',
};

/** Runs a piece of file work and rethrows what the file system says as LutraErrors about `where`. */
export async function onFile<T>(where: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    throw fromSystem(error, where);
  }
}
