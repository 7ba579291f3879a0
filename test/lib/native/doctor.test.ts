import { afterEach, describe, expect, it, vi } from 'vitest';
import { doctor } from '../../../lib/native/index.js';

describe('doctor', () => {
  afterEach(() => {
    vi.unstubAllEnvs();
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
});
