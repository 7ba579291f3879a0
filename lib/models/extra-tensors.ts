import { lutraError } from '../errors.js';
import type { ModelGraph } from './graph.js';

/** Buffers that older versions of transformers saved: what they hold follows from config.json. */
const buffers = /\.(rotary_emb\.inv_freq|self_attn\.(bias|masked_bias|rotary_emb\.(cos|sin)_cached))$/;
/** The names under which a supported model has everything that it computes with. */
const ofModel = /^(model|lm_head)\./;

/**
 * The tensors of a checkpoint that the model does not load and that are no well-known buffers: adapters, vision towers, heads
 * of other tasks.
 *
 * @throws `LUTRA_E_UNSUPPORTED_MODEL` for one that belongs to the model itself: without it the model would compute something else
 */
export function extraTensors(graph: ModelGraph, tensors: ReadonlyMap<string, unknown>, where: string): string[] {
  const copies = graph.tied ? ['model.embed_tokens.weight', 'lm_head.weight'] : [];
  const known = new Set([...graph.shapes.keys(), ...copies]);
  const extra = [...tensors.keys()].filter((name) => !known.has(name) && !buffers.test(name));
  const computed = extra.find((name) => ofModel.test(name));
  if (computed === undefined) return extra;
  throw lutraError('LUTRA_E_UNSUPPORTED_MODEL', {
    message: `the checkpoint holds ${computed}, with which this architecture does not compute`,
    where,
    hint: 'Another architecture, or a damaged checkpoint.',
  });
}
