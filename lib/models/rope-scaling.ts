import type { Fields } from './fields.js';

/** How rotary frequencies are stretched for contexts beyond the one that the model was trained with. */
export type RopeScaling =
  | { readonly type: 'none' }
  /** Position interpolation: every frequency divided by `factor` (Chen et al., arXiv 2306.15595). */
  | { readonly type: 'linear'; readonly factor: number }
  /** Llama 3.1: only long wavelengths are stretched, with a ramp between the two bounds. */
  | {
      readonly type: 'llama3';
      readonly factor: number;
      readonly lowFrequencyFactor: number;
      readonly highFrequencyFactor: number;
      readonly originalContext: number;
    };

const maxFactor = 65536;
const leastFrequencyFactor = 1 / 1024;

/** @throws `LUTRA_E_UNSUPPORTED_MODEL` for other types (yarn, dynamic, longrope …), `LUTRA_E_SHAPE` for bad numbers. */
export function parseRopeScaling(fields: Fields | null): RopeScaling {
  if (fields === null) return { type: 'none' };
  const key = fields.get('rope_type') !== undefined ? 'rope_type' : 'type';
  if (fields.get(key) === undefined && fields.names.some((name) => name !== 'rope_theta'))
    fields.refuse('LUTRA_E_UNSUPPORTED_MODEL', 'rope_type', `a type beside ${fields.names.join(', ')}`);
  const type = fields.word(key, ['default', 'linear', 'llama3'], 'default');
  const partial = fields.get('partial_rotary_factor');
  if (partial !== undefined && partial !== 1) fields.refuse('LUTRA_E_UNSUPPORTED_MODEL', 'partial_rotary_factor', '1');
  if (type === 'default') return { type: 'none' };
  const factor = fields.number('factor', 1, maxFactor);
  if (type === 'linear') return { type, factor };
  const lowFrequencyFactor = fields.number('low_freq_factor', leastFrequencyFactor, maxFactor);
  const highFrequencyFactor = fields.number('high_freq_factor', leastFrequencyFactor, maxFactor);
  if (highFrequencyFactor <= lowFrequencyFactor)
    fields.refuse('LUTRA_E_SHAPE', 'high_freq_factor', `more than low_freq_factor, ${lowFrequencyFactor}`);
  const originalContext = fields.count('original_max_position_embeddings', 2 ** 24);
  return { type, factor, lowFrequencyFactor, highFrequencyFactor, originalContext };
}

/** The base of the rotary frequencies, from `rope_parameters` or beside it. */
export function ropeTheta(fields: Fields): number {
  const nested = fields.object('rope_parameters');
  const holder = nested?.get('rope_theta') === undefined ? fields : nested;
  return holder.number('rope_theta', 1, 1e12, 10000);
}

export function sameScaling(a: RopeScaling, b: RopeScaling): boolean {
  return JSON.stringify(a) === JSON.stringify(b);
}
