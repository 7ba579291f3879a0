import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { dirname, join, normalize } from 'node:path';
import { describe, expect, it } from 'vitest';

/** The law of imports of docs/architecture.md: a room may import the rooms of any later rank. */
const nativeRanks = [
  ['binding'],
  ['program', 'quantize'],
  ['linalg'],
  ['ops'],
  ['kernels', 'device', 'cuda'],
  ['packing'],
  ['platform'],
  ['core'],
];
const libRanks = [
  ['cli', 'server'],
  ['report'],
  ['comparison'],
  ['pipeline'],
  ['evaluation', 'inference', 'benchmark'],
  ['calibration', 'quantization'],
  ['models', 'formats', 'tokenizer', 'chat'],
  ['ops'],
  ['tensor'],
  ['native'],
  ['errors.ts'],
];
/** Files that gather the public API stand above every room. */
const libDoors = ['index.ts'];

const files = execFileSync('git', ['ls-files', '--cached', '--others', '--exclude-standard', 'native', 'lib'], {
  encoding: 'utf8',
})
  .trim()
  .split('\n');
const nativeFiles = files.filter((file) => /^native\/.*\.(h|cc|cu)$/.test(file));
const libFiles = files.filter((file) => /^lib\/.*\.ts$/.test(file));

const rankOf = (ranks: string[][], room: string) => ranks.findIndex((rooms) => rooms.includes(room));

/** Says what is wrong with one room importing another, or null. */
function violation(ranks: string[][], from: string, to: string): string | null {
  const [fromRank, toRank] = [rankOf(ranks, from), rankOf(ranks, to)];
  if (fromRank < 0) return `${from} is no room of the map`;
  if (toRank < 0) return `${to} is no room of the map`;
  if (from === to || fromRank < toRank || (from === 'device' && to === 'cuda')) return null;
  return `${from} must not know ${to}`;
}

interface Import {
  file: string;
  room: string;
  target: string;
  targetRoom: string;
}

function nativeIncludes(): Import[] {
  return nativeFiles.flatMap((file) =>
    [...readFileSync(file, 'utf8').matchAll(/^#include "([^"]+)"/gm)].map(([, path = '']) => ({
      file,
      room: file.split('/')[1] ?? '',
      target: path,
      targetRoom: path.split('/')[0] ?? '',
    })),
  );
}

function libImports(): Import[] {
  return libFiles.flatMap((file) =>
    [...readFileSync(file, 'utf8').matchAll(/(?:from|import\()\s*'(\.[^']+)'/g)].map(([, path = '']) => {
      const target = normalize(join(dirname(file), path)).replace(/\.js$/, '.ts');
      return { file, room: file.split('/')[1] ?? '', target, targetRoom: target.split('/')[1] ?? '' };
    }),
  );
}

describe('the law of imports', () => {
  it('finds files to look at', () => {
    expect(nativeFiles.length).toBeGreaterThan(10);
    expect(libFiles.length).toBeGreaterThan(10);
  });

  it('catches an import to the left and a room that is not on the map', () => {
    expect(violation(nativeRanks, 'core', 'ops')).toContain('must not know');
    expect(violation(nativeRanks, 'program', 'quantize')).toContain('must not know');
    expect(violation(libRanks, 'formats', 'utils')).toContain('no room');
    expect(violation(libRanks, 'cli', 'ops')).toBeNull();
  });

  it('holds between the native rooms', () => {
    const broken = nativeIncludes()
      .map(({ file, room, target, targetRoom }) => [
        violation(nativeRanks, room, targetRoom),
        `${file} includes ${target}`,
      ])
      .filter(([what]) => what !== null);
    expect(broken).toEqual([]);
  });

  it('lets only ops and the kernels themselves include kernels', () => {
    const broken = nativeIncludes().filter(
      ({ room, targetRoom }) => targetRoom === 'kernels' && room !== 'ops' && room !== 'kernels',
    );
    expect(broken).toEqual([]);
  });

  it('reaches the CUDA backend only through its C ABI', () => {
    const broken = nativeIncludes().filter(
      ({ room, target, targetRoom }) =>
        (targetRoom === 'cuda' && room !== 'cuda' && target !== 'cuda/abi.h') ||
        (room === 'cuda' && !['cuda', 'packing', 'core'].includes(targetRoom)),
    );
    expect(broken).toEqual([]);
  });

  it('keeps kernel families apart', () => {
    const broken = nativeIncludes().filter(
      ({ file, room, target }) =>
        room === 'kernels' && target.startsWith('kernels/') && target.split('/')[1] !== file.split('/')[2],
    );
    expect(broken).toEqual([]);
  });

  it('lets only binding/ see Node', () => {
    const broken = nativeFiles.filter(
      (file) => !file.startsWith('native/binding/') && /#include\s*[<"]n(api|ode_api)/.test(readFileSync(file, 'utf8')),
    );
    expect(broken).toEqual([]);
  });

  it('holds between the rooms of lib', () => {
    const broken = libImports()
      .filter(({ room }) => !libDoors.includes(room))
      .map(({ file, room, target, targetRoom }) => [violation(libRanks, room, targetRoom), `${file} imports ${target}`])
      .filter(([what]) => what !== null);
    expect(broken).toEqual([]);
  });

  it("enters a room through its index.ts, or a format's own", () => {
    const isDoor = (target: string) =>
      /^lib\/(errors\.ts|index\.ts|[^/]+\/index\.ts|formats\/[^/]+\/index\.ts)$/.test(target);
    const broken = libImports().filter(({ room, target, targetRoom }) => room !== targetRoom && !isDoor(target));
    expect(broken).toEqual([]);
  });
});
