import { execFileSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { join } from 'node:path';

/**
 * The CUDA backend's own sources on a runtime of the host (test/native/cuda/host_runtime): an object that opens like the
 * backend and has one device of fibers. The native tests build it; it is built here where they did not run. Gives its path.
 */
export function hostCuda(): string {
  const root = join(import.meta.dirname, '..');
  const path = join(process.env.LUTRA_PREBUILD ?? root, 'build', 'Release', 'lutra_cuda_host.so');
  if (existsSync(path)) return path;
  const { LD_PRELOAD: _, ...env } = process.env;
  execFileSync('cmake', ['--build', join(root, 'build', 'cmake'), '--target', 'lutra_cuda_host'], { env });
  return path;
}
