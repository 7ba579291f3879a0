import type { BlockGraph } from '../models/index.js';
import type { Weight } from '../ops/index.js';
import { asFloat32, type TensorSource } from '../quantization/index.js';
import type { Tensor } from '../tensor/index.js';
import type { ActivationGenerations } from './activation-generations.js';
import type { ActivationStore } from './activation-store.js';
import type { BlockRunner } from './block-runner.js';
import type { HeldOutWindows } from './held-out.js';
import type { JobContext, LayerWriter } from './layer-writer.js';

/** What enters the block at hand; where blocks are finetuned, what the original block makes of that; and what is held out. */
export interface ActivationStores {
  inputs: ActivationGenerations;
  targets: ActivationStore | null;
  heldOut: HeldOutWindows | null;
}

/** What one block is worked on with. */
export interface BlockWork {
  source: TensorSource;
  block: BlockGraph;
  /** The block's tensors by name; layers that are through have the weights that their packed ones stand for. */
  weights: Map<string, Weight>;
  runner: BlockRunner;
  stores: ActivationStores;
  layers: LayerWriter;
  context: JobContext;
  step: { block: number; blocks: number; windows: number };
}

/** The block's tensors by name: weights as they are stored, biases in f32. */
export async function loadBlock(
  source: TensorSource,
  block: BlockGraph,
  context: JobContext,
): Promise<Map<string, Weight>> {
  const weights = new Map<string, Weight>();
  try {
    for (const name of block.tensors) weights.set(name, await source.load(name, context));
    for (const { bias } of block.linears) {
      if (!bias) continue;
      const stored = weights.get(bias) as Tensor;
      const converted = await asFloat32(stored, { ...context, where: bias });
      if (converted === stored) continue;
      weights.set(bias, converted);
      stored.dispose();
    }
    return weights;
  } catch (error) {
    for (const tensor of weights.values()) tensor.dispose();
    throw error;
  }
}
