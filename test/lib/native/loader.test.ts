import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { LutraDeviceError } from '../../../lib/errors.js';
import { addon, load, platformName } from '../../../lib/native/index.js';

let root = '';
beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), 'lutra-loader-'));
  writeFileSync(join(root, 'package.json'), '{ "name": "empty" }');
});
afterEach(() => rmSync(root, { recursive: true }));

function failure(): LutraDeviceError {
  try {
    load(root);
  } catch (error) {
    if (error instanceof LutraDeviceError) return error;
    throw error;
  }
  throw new Error('the addon was loaded');
}

describe('the loader', () => {
  it('finds the addon once', () => {
    expect(addon()).toBe(addon());
    expect(addon().describe().threads).toBeGreaterThan(0);
  });

  it('says platform, C library, tried paths and what to do where no binary fits', () => {
    const error = failure();
    expect(error.code).toBe('LUTRA_E_NO_BINARY');
    expect(error.message).toContain(platformName());
    expect(error.message).toContain(join(root, 'prebuilds'));
    expect(error.found).toBe('no prebuilds');
    expect(error.hint).toMatch(/npm ci/);
  });

  it('names the prebuilds that are there', () => {
    mkdirSync(join(root, 'prebuilds', 'sunos-sparc'), { recursive: true });
    expect(failure().found).toBe('prebuilds for sunos-sparc');
  });

  it('reports a binary that is no binary', () => {
    const folder = join(root, 'build', 'Release');
    mkdirSync(folder, { recursive: true });
    writeFileSync(join(folder, 'lutra.node'), 'not an ELF file');
    const error = failure();
    expect(error.code).toBe('LUTRA_E_NO_BINARY');
    expect(error.cause).toBeInstanceOf(Error);
  });
});
