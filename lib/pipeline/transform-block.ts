import { gridOf, storageOf } from '../quantization/index.js';
import type { BlockWork } from './block-work.js';
import { blockTransforms } from './tensor-source.js';

/** Applies the recipe's transforms of blocks, one after the other, each to what the last one left. */
export async function transformBlock(work: BlockWork): Promise<void> {
  const { source, block, weights, runner, layers, context, step } = work;
  const { recipe, threads, signal } = context;
  const { config } = source.graph;
  for (const { transform, options } of blockTransforms(recipe)) {
    const input = {
      config,
      block,
      weights,
      dtype: (name: string) => source.dtype(name),
      grid: (name: string) => gridOf(recipe, name),
      storage: storageOf(recipe),
      options,
      sample: (tokens: number) => runner.sample(block, weights, tokens),
    };
    const report = await transform.run(input, { threads, signal, where: block.prefix });
    layers.transforms.push({ block: block.index, method: transform.name, ...report });
    context.report({ phase: 'transform', block: step.block, blocks: step.blocks, method: transform.name });
  }
}
