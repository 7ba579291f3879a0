import { Tensor } from '../../tensor/index.js';
import type { Call, SolvedLayer } from '../method.js';
import { widenPair, withoutPair } from '../pair.js';

/** f32 [outFeatures, inFeatures]: what a layer's sub-branch adds to the levels of its codes, or null where it has none. */
export async function branchOf({ codes, subBranch }: SolvedLayer, call: Call): Promise<Tensor | null> {
  if (!subBranch) return null;
  using pair = await widenPair(subBranch, call);
  pair.a.write((pair.a.read() as Float32Array).map((value) => -value));
  using nothing = Tensor.zeros('f32', codes.shape);
  return await withoutPair(nothing, pair, call);
}
