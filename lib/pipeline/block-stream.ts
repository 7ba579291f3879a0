import { prepareInputs, type TensorSource } from '../quantization/index.js';
import { BlockRunner } from './block-runner.js';
import { type ActivationStores, type BlockWork, loadBlock } from './block-work.js';
import type { CalibrationInputs } from './calibration-inputs.js';
import type { JobContext, LayerWriter } from './layer-writer.js';
import { quantizeBlock } from './solve-block.js';
import { transformBlock } from './transform-block.js';

/** Methods that need no statistics: one matrix after another. */
export async function streamMatrices(source: TensorSource, layers: LayerWriter, context: JobContext): Promise<void> {
  const { recipe } = context;
  const prepared = await prepareInputs(recipe, {}, { ...context, where: recipe.solver.method });
  const inputs = { ...prepared, statistics: {}, tokens: null };
  try {
    for (const block of source.graph.blocks)
      for (const node of block.linears) {
        using w = await source.load(node.name, context);
        using solved = await layers.solve(block, node, w, inputs);
        (await layers.write(solved)).dispose();
      }
  } finally {
    prepared.release();
  }
}

/**
 * Methods that need the inputs of layers or blocks: block after block. A block's Hessians are those of its original weights, or, for a sequential
 * method, of those before a layer quantized; its inputs are those that the quantized blocks before it give (GPTQ, arXiv
 * 2210.17323, section 4). One block of weights is in memory at a time.
 */
export async function streamBlocks(
  source: TensorSource,
  layers: LayerWriter,
  calibration: CalibrationInputs,
  stores: ActivationStores,
  context: JobContext,
): Promise<void> {
  const { graph } = source;
  const { windows, sequenceLength } = calibration;
  const runner = new BlockRunner(graph.config, sequenceLength, windows.length, stores.inputs, context);
  try {
    using table = await source.load(graph.embedding, context);
    await runner.embed(table, windows, (window) => context.report({ phase: 'embed', window, windows: windows.length }));
    await stores.heldOut?.embed(table);
    table.dispose();
    for (const block of graph.blocks) {
      const weights = await loadBlock(source, block, context);
      try {
        const step = { block: block.index + 1, blocks: graph.blocks.length, windows: windows.length };
        const work = { source, block, weights, runner, stores, layers, context, step };
        await runOriginal(work);
        await transformBlock(work);
        using meter = await stores.heldOut?.look(block, weights, runner);
        await quantizeBlock(work);
        await meter?.measure(weights, layers);
        await layers.writeDense(block.tensors, weights);
        if (step.block === step.blocks) continue;
        await runner.run(block, weights, {
          into: stores.inputs,
          onWindow: (window) => context.report({ phase: 'advance', ...step, window }),
        });
        await stores.heldOut?.advance(block, weights);
      } finally {
        for (const tensor of weights.values()) tensor.dispose();
      }
    }
  } finally {
    runner.dispose();
  }
}

/** Keeps what the original block makes of its inputs, where that is what finetuning aims at. */
async function runOriginal({ block, weights, runner, stores, context, step }: BlockWork): Promise<void> {
  if (!stores.targets) return;
  await runner.run(block, weights, {
    into: stores.targets,
    onWindow: (window) => context.report({ phase: 'target', ...step, window }),
  });
}
