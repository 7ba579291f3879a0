import { describe, expect, it } from 'vitest';
import { type RopeScaling, ropeFrequencies } from '../../../lib/models/index.js';

const frequencies = (ropeScaling: RopeScaling, headDim = 128, ropeTheta = 500000) =>
  ropeFrequencies({ headDim, ropeTheta, ropeScaling });

describe('ropeFrequencies', () => {
  it('falls geometrically from 1 towards 1/theta', () => {
    const plain = frequencies({ type: 'none' });
    expect(plain).toHaveLength(64);
    expect(plain[0]).toBe(1);
    const ratio = 500000 ** (-1 / 64);
    for (let i = 1; i < 64; i++) expect(plain[i]! / plain[i - 1]!).toBeCloseTo(ratio, 12);
  });

  it('divides every frequency for linear scaling', () => {
    const plain = frequencies({ type: 'none' });
    frequencies({ type: 'linear', factor: 4 }).forEach((f, i) => {
      expect(f).toBe(plain[i]! / 4);
    });
  });

  it('keeps short wavelengths, divides long ones and ramps between them for llama3', () => {
    const scaling = { factor: 8, lowFrequencyFactor: 1, highFrequencyFactor: 4, originalContext: 8192 };
    const plain = frequencies({ type: 'none' });
    const scaled = frequencies({ type: 'llama3', ...scaling });
    const seen = { kept: 0, divided: 0, ramped: 0 };
    plain.forEach((frequency, i) => {
      const wavelength = (2 * Math.PI) / frequency;
      const share = scaled[i]! / frequency;
      if (wavelength < 8192 / 4) {
        expect(share).toBe(1);
        seen.kept++;
      } else if (wavelength > 8192 / 1) {
        expect(share).toBeCloseTo(1 / 8, 15);
        seen.divided++;
      } else {
        expect(share).toBeGreaterThan(1 / 8);
        expect(share).toBeLessThan(1);
        seen.ramped++;
      }
      if (i > 0) expect(scaled[i]!).toBeLessThan(scaled[i - 1]!);
    });
    expect(Object.values(seen).every((count) => count > 0)).toBe(true);
  });
});
