import { Tensor } from '../tensor/index.js';
import type { LlamaConfig } from './config.js';
import type { RopeScaling } from './rope-scaling.js';

/**
 * The angles by which a position turns each pair of a head, in radians per position; f64 [headDim / 2].
 * Source: RoFormer (arXiv 2104.09864, eq. 15), scaled as the configuration says.
 */
export function ropeFrequencies(config: Pick<LlamaConfig, 'headDim' | 'ropeTheta' | 'ropeScaling'>): Float64Array {
  const { headDim, ropeTheta, ropeScaling } = config;
  return Float64Array.from({ length: headDim / 2 }, (_, i) => scaled(ropeTheta ** ((-2 * i) / headDim), ropeScaling));
}

/** Cosines then sines of every position's angles: f32 [positions, headDim], computed in fp64. */
export function ropeTable(
  config: Pick<LlamaConfig, 'headDim' | 'ropeTheta' | 'ropeScaling'>,
  positions: number,
): Tensor {
  const frequencies = ropeFrequencies(config);
  const half = frequencies.length;
  const table = Tensor.zeros('f32', [positions, 2 * half]);
  const row = new Float32Array(2 * half);
  for (let position = 0; position < positions; position++) {
    for (let i = 0; i < half; i++) {
      const angle = position * frequencies[i]!;
      row[i] = Math.cos(angle);
      row[half + i] = Math.sin(angle);
    }
    table.write(row, position * 2 * half);
  }
  return table;
}

function scaled(frequency: number, scaling: RopeScaling): number {
  if (scaling.type === 'none') return frequency;
  if (scaling.type === 'linear') return frequency / scaling.factor;
  const { factor, lowFrequencyFactor: low, highFrequencyFactor: high, originalContext } = scaling;
  const turns = (originalContext * frequency) / (2 * Math.PI);
  if (turns < low) return frequency / factor;
  if (turns > high) return frequency;
  const share = (turns - low) / (high - low);
  return (1 - share) * (frequency / factor) + share * frequency;
}
