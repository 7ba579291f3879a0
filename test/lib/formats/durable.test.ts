import { execFileSync } from 'node:child_process';
import {
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeEach, expect, it, vi } from 'vitest';
import { replaceFile } from '../../../lib/formats/index.js';
import { createComparison } from '../../../lib/report/index.js';

let refuseRenaming = false;
vi.mock('node:fs/promises', async (original) => {
  const real = await original<typeof import('node:fs/promises')>();
  const rename: typeof real.rename = async (from, to) => {
    if (refuseRenaming) throw Object.assign(new Error('EIO'), { code: 'EIO', syscall: 'rename' });
    await real.rename(from, to);
  };
  return { ...real, rename };
});

const scratch = mkdtempSync(join(tmpdir(), 'lutra-durable-'));
afterAll(() => rmSync(scratch, { recursive: true }));

let directory: string;
beforeEach(() => {
  refuseRenaming = false;
  directory = mkdtempSync(join(scratch, 'case-'));
});

it('replaces a file, and leaves the old one alone where that fails', async () => {
  const path = join(directory, 'page.html');
  await replaceFile(path, 'old');
  refuseRenaming = true;
  await expect(replaceFile(path, 'new')).rejects.toMatchObject({ code: 'LUTRA_E_IO' });
  expect(readFileSync(path, 'utf8')).toBe('old');
  expect(readdirSync(directory)).toEqual(['page.html']);
  refuseRenaming = false;
  await replaceFile(path, 'new');
  expect(readFileSync(path, 'utf8')).toBe('new');
});

it.each([
  ['pipe', (path: string) => execFileSync('mkfifo', [path])],
  ['directory', (path: string) => mkdirSync(path)],
  ['link', (path: string) => symlinkSync('elsewhere', path)],
])('puts no file in the place of a %s', async (_, make) => {
  const path = join(directory, 'compare.json');
  make(path);
  const { mode, ino } = lstatSync(path);
  await expect(replaceFile(path, 'text')).rejects.toMatchObject({ code: 'LUTRA_E_EXISTS', where: path });
  await expect(createComparison(directory, { overwrite: true })).rejects.toMatchObject({ code: 'LUTRA_E_EXISTS' });
  expect(lstatSync(path)).toMatchObject({ mode, ino });
  expect(readdirSync(directory)).toEqual(['compare.json']);
});

it('a comparison that may be overwritten makes room', async () => {
  writeFileSync(join(directory, 'compare.json'), '{}');
  await expect(createComparison(directory, {})).rejects.toMatchObject({ code: 'LUTRA_E_EXISTS' });
  await createComparison(directory, { overwrite: true });
  expect(readdirSync(directory)).toEqual([]);
});
