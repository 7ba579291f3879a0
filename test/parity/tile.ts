import type { QuantizedLayout } from '../../lib/index.js';

/** A packed matrix as plain numbers, laid out by docs/format.md and by nothing of lib/. */
export interface PackedNumbers {
  layout: QuantizedLayout;
  codes: number[];
  /** Scales or alphas, as f32. */
  scales: number[];
  /** Zero codes, or real offsets as f32. */
  offsets: number[] | null;
  /** The weights that it stands for, [rows, cols], in fp64. */
  weights: Float64Array;
}

/** Random codes, alphas and offsets of a layout; `random` gives numbers in [0, 1). */
export function randomPacked(layout: QuantizedLayout, random: () => number): PackedNumbers {
  const { rows, cols, bits, kind, offsets: offsetKind } = layout;
  const groupSize = layout.groupSize === -1 ? cols : layout.groupSize;
  const [groups, chunks, planes] = [Math.ceil(cols / groupSize), Math.ceil(cols / 32), kind === 'planes' ? bits : 1];
  const padded = 16 * Math.ceil(rows / 16);
  const words = new Uint32Array(padded * chunks * bits);
  const scales = new Float32Array(padded * groups * planes);
  const offsets = offsetKind === 'none' ? null : new Float32Array(padded * groups);
  const weights = new Float64Array(rows * cols);
  for (let m = 0; m < rows; m++) {
    const first = 64 * Math.floor(m / 64);
    const n = Math.min(64, padded - first);
    for (let g = 0; g < groups; g++) {
      const at = first * groups + g * n + m - first;
      const alphas = Array.from({ length: planes }, (_, b) =>
        Math.fround((0.1 + random()) * (random() < 0.5 ? -1 : 1) + b),
      );
      alphas.forEach((alpha, b) => {
        scales[(first * groups + g * n) * planes + b * n + m - first] = alpha;
      });
      if (offsets) offsets[at] = offsetKind === 'zeroCode' ? Math.floor(random() * 2 ** bits) : random() - 0.5;
      const offset = offsetOf(layout, alphas, offsets?.[at] ?? 0);
      for (let k = g * groupSize; k < Math.min(cols, (g + 1) * groupSize); k++) {
        let w = offset;
        for (let b = 0; b < bits; b++) {
          if (random() < 0.5) continue;
          words[first * chunks * bits + (Math.floor(k / 32) * bits + b) * n + m - first]! |= 1 << (k % 32);
          w += kind === 'planes' ? alphas[b]! : alphas[0]! * 2 ** b;
        }
        weights[m * cols + k] = w;
      }
    }
  }
  const codes = [...new Uint8Array(words.buffer)];
  return { layout, codes, scales: [...scales], offsets: offsets && [...offsets], weights };
}

function offsetOf({ kind, bits, offsets }: QuantizedLayout, alphas: readonly number[], stored: number): number {
  if (offsets === 'real') return stored;
  if (offsets === 'zeroCode') return -alphas[0]! * stored;
  return kind === 'planes' ? -alphas.reduce((sum, alpha) => sum + alpha) / 2 : -alphas[0]! * 2 ** (bits - 1);
}
