import { afterEach, describe, expect, it, vi } from 'vitest';
import { addon, doctor } from '../../../lib/native/index.js';

describe('doctor', () => {
  afterEach(() => {
    vi.unstubAllEnvs();
    vi.restoreAllMocks();
  });
  const adviceOn = (threads: string): string[] => {
    vi.stubEnv('LUTRA_THREADS', threads);
    return doctor().advice.filter((line) => line.includes('LUTRA_THREADS'));
  };

  it.each(['0', '-2', '1025', '2.5', '4x', 'many', ' '])('advises on LUTRA_THREADS=%s', (threads) => {
    expect(adviceOn(threads)).toEqual([expect.stringContaining(`LUTRA_THREADS=${threads} `)]);
  });

  it.each(['', '1', '16', '1024'])('has nothing to say on LUTRA_THREADS=%s', (threads) => {
    expect(adviceOn(threads)).toEqual([]);
  });

  it.each([
    ['refuses tiles', 'avx512vbmi', undefined, false],
    ['gives tiles', 'amx', undefined, true],
    ['is not asked for tiles', 'avx512vbmi', 'avx512vbmi', true],
  ])('says where the operating system %s', (_, isa, override, listed) => {
    const found = addon().describe();
    const everyFeature = 2 ** 11 - 1;
    vi.stubEnv('LUTRA_ISA', override);
    vi.spyOn(addon(), 'describe').mockReturnValue({ ...found, isa, isas: ['scalar', 'amx'], features: everyFeature });
    const { features, advice } = doctor();
    expect(features.includes('AMX-INT8')).toBe(listed);
    expect(features).toContain('AVX-512 BF16');
    expect(advice.some((line) => line.includes('no tiles'))).toBe(!listed);
  });
});
