import { Program } from '../../ops/index.js';
import { QuantizedTensor, Tensor } from '../../tensor/index.js';
import type { Call, SolvedLayer } from '../method.js';
import { pack } from '../pack.js';
import { levelsOf, residual, runOptions } from '../passes.js';

/** f32 [outFeatures, inFeatures]: what a layer's sub-branch adds to the levels of its codes, or null where it has none. */
export async function branchOf(layer: SolvedLayer, call: Call): Promise<Tensor | null> {
  const { codes, values, grid, scaleDtype, subBranch } = layer;
  if (!subBranch) return null;
  using packed = await pack({ codes, values }, grid, scaleDtype, call);
  const whole = new QuantizedTensor(packed.layout, packed.codes, packed.scales, packed.offsets, { subBranch });
  try {
    using w = Tensor.zeros('f32', codes.shape);
    using program = new Program().dequantize(whole, w);
    await program.runAsync(runOptions(call));
    using levels = await levelsOf(values, grid, call);
    return await residual(w, codes, levels, grid, call);
  } finally {
    // The tensors of `whole` are those of `packed` and of the layer.
    whole.native.dispose();
  }
}
