import { existsSync, readdirSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { lutraError } from '../errors.js';
import type { Addon } from './addon.js';
import { checkVariables } from './environment.js';

const require = createRequire(import.meta.url);
const packageRoot = join(dirname(fileURLToPath(import.meta.url)), '..', '..');

let loaded: Addon | undefined;
let ready: Addon | undefined;

/**
 * The addon of this platform: a local build, else the prebuild that fits. Loaded on first use, once a thread.
 *
 * @throws LutraDeviceError `LUTRA_E_NO_BINARY` where there is neither, with the platform, the C library and the tried paths;
 *   `LUTRA_E_OPTION` where LUTRA_ISA or LUTRA_THREADS is wrong.
 */
export function addon(): Addon {
  if (ready) return ready;
  const native = addonAsIs();
  checkVariables(native);
  ready = native;
  return native;
}

/** The same, whatever the environment variables say: for the doctor, who tells what is wrong with them. */
export function addonAsIs(): Addon {
  loaded ??= load(packageRoot);
  return loaded;
}

/** Loads the addon that lies under `root`, uncached. */
export function load(root: string): Addon {
  try {
    return (require('node-gyp-build') as (dir: string) => Addon)(root);
  } catch (cause) {
    // node-gyp-build looks here instead, for the package of this name.
    const folder = (root === packageRoot && process.env.LUTRA_PREBUILD) || root;
    throw lutraError('LUTRA_E_NO_BINARY', {
      message: `no binary of lutra fits this machine (${platformName()}); tried ${triedPaths(folder).join(', ')}`,
      where: folder,
      found: availablePrebuilds(folder),
      expected: `${process.platform}-${process.arch} for ${libc()}`,
      hint:
        'Install on a supported platform, or build from a clone of the repository: npm ci needs g++, make and cmake. ' +
        `Loading said: ${cause instanceof Error ? cause.message.split('\n')[0] : String(cause)}`,
      cause,
    });
  }
}

/** Platform, processor and C library of this process, for example "linux-x64, glibc 2.36". */
export function platformName(): string {
  return `${process.platform}-${process.arch}, ${libc()}`;
}

function libc(): string {
  if (process.platform !== 'linux') return 'the system C library';
  const report = process.report?.getReport() as { header?: { glibcVersionRuntime?: string } } | undefined;
  const version = report?.header?.glibcVersionRuntime;
  return version ? `glibc ${version}` : 'musl';
}

function triedPaths(root: string): string[] {
  return [join(root, 'build', 'Release'), join(root, 'prebuilds', `${process.platform}-${process.arch}`)];
}

function availablePrebuilds(root: string): string {
  const folder = join(root, 'prebuilds');
  const found = existsSync(folder) ? readdirSync(folder) : [];
  return found.length ? `prebuilds for ${found.join(', ')}` : 'no prebuilds';
}
