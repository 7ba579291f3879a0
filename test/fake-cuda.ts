import { execFileSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { join } from 'node:path';

/** LutraCudaResult of native/cuda/abi.h. */
export const cudaResults = {
  ok: 0,
  noDriver: 1,
  driverTooOld: 2,
  noDevice: 3,
  noArchitecture: 4,
  noMemory: 5,
  failed: 7,
} as const;

/** Builds an object into `folder` that opens like the CUDA backend and says `result` of every device. Gives its path. */
export function fakeCuda(folder: string, result: keyof typeof cudaResults, version = 2): string {
  const root = join(import.meta.dirname, '..');
  const path = join(folder, `${result}-${version}.so`);
  if (existsSync(path)) return path;
  const { LD_PRELOAD: _, ...env } = process.env;
  const defines = [`-DFAKE_STATE=${cudaResults[result]}`, `-DFAKE_VERSION=${version}u`];
  const source = join(root, 'test', 'fixtures', 'cuda', 'fake_backend.c');
  execFileSync('cc', ['-shared', '-fPIC', `-I${join(root, 'native')}`, ...defines, source, '-o', path], { env });
  return path;
}
