import type { LlamaConfig } from '../models/index.js';
import type { Recipe } from '../quantization/index.js';
import type { WindowSizes } from './calibration-inputs.js';
import { fisherWindows } from './fisher.js';

/**
 * Bytes of activations that lie beside the output while a job runs, f32 [sequenceLength, hiddenSize] a window: what enters a
 * block and what will enter the next, of the windows and of those held out; where blocks are finetuned, what the original makes
 * of them. Before them, where widths are chosen, some windows once for every block.
 */
export function scratchBytes(
  { hiddenSize, layers }: LlamaConfig,
  { samples, heldOut, sequenceLength }: WindowSizes,
  recipe: Recipe,
): number {
  const window = 4 * sequenceLength * hiddenSize;
  const targets = recipe.finetune.length > 0 ? samples : 0;
  const choosing = recipe.allocation ? (layers + 1) * fisherWindows(samples, sequenceLength) : 0;
  return window * Math.max(choosing, 2 * (samples + heldOut) + targets);
}
