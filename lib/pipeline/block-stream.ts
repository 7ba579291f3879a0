import { HessianCollector } from '../calibration/index.js';
import type { BlockGraph, LinearNode } from '../models/index.js';
import { Program, type Weight } from '../ops/index.js';
import {
  asFloat32,
  isSequential,
  needsOf,
  prepareInputs,
  type Statistics,
  type TensorSource,
} from '../quantization/index.js';
import { type QuantizedTensor, Tensor } from '../tensor/index.js';
import type { ActivationStore } from './activation-store.js';
import { BlockRunner } from './block-runner.js';
import type { CalibrationInputs } from './calibration-inputs.js';
import type { JobContext, LayerWriter } from './layer-writer.js';
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
 * Methods that need Hessians: block after block. A block's Hessians are those of its original weights, or, for a sequential
 * method, of those before a layer quantized; its inputs are those that the quantized blocks before it give (GPTQ, arXiv
 * 2210.17323, section 4). One block of weights is in memory at a time.
 */
export async function streamBlocks(
  source: TensorSource,
  layers: LayerWriter,
  calibration: CalibrationInputs,
  store: ActivationStore,
  context: JobContext,
): Promise<void> {
  const { graph } = source;
  const { windows, sequenceLength } = calibration;
  const runner = new BlockRunner(graph.config, sequenceLength, windows.length, store, context);
  try {
    using table = await source.load(graph.embedding, context);
    await runner.embed(table, windows, (window) => context.report({ phase: 'embed', window, windows: windows.length }));
    table.dispose();
    for (const block of graph.blocks) {
      const weights = await loadBlock(source, block, context);
      try {
        const step = { block: block.index + 1, blocks: graph.blocks.length, windows: windows.length };
        const work = { source, block, weights, runner, layers, context, step };
        await transformBlock(work);
        await quantizeBlock(work);
        await layers.writeDense(block.tensors, weights);
        if (step.block < step.blocks)
          await runner.run(block, weights, {
            keep: true,
            onWindow: (window) => context.report({ phase: 'advance', ...step, window }),
          });
      } finally {
        for (const tensor of weights.values()) tensor.dispose();
      }
    }
  } finally {
    runner.dispose();
  }
}

/** What one block is worked on with. */
export interface BlockWork {
  source: TensorSource;
  block: BlockGraph;
  /** The block's tensors by name; layers that are through have the weights that their packed ones stand for. */
  weights: Map<string, Weight>;
  runner: BlockRunner;
  layers: LayerWriter;
  context: JobContext;
  step: { block: number; blocks: number; windows: number };
}

/** Quantizes the block's linear layers, input by input in the order of the data flow, and writes them. */
async function quantizeBlock(work: BlockWork): Promise<void> {
  const { recipe } = work.context;
  const needed = needsOf(recipe).includes('hessian');
  const sequential = isSequential(recipe);
  let collector: HessianCollector | null = null;
  try {
    for (const [input, nodes] of byInput(work.block.linears)) {
      if (needed && (sequential || !collector)) {
        collector?.dispose();
        collector = await collectHessians(work, sequential ? input : null);
      }
      const taken = collector?.take(input);
      try {
        await quantizeLayers(work, nodes, taken ?? {}, input);
      } finally {
        taken?.hessian.dispose();
      }
    }
  } finally {
    collector?.dispose();
  }
}

/** The Hessians of one input, or of everything that the block's linear layers read, in a pass with the block as it is now. */
async function collectHessians(
  { block, weights, runner, context, step }: BlockWork,
  only: string | null,
): Promise<HessianCollector> {
  const collector = new HessianCollector(only);
  try {
    await runner.run(block, weights, {
      tap: collector.tap,
      keep: false,
      onWindow: (window) => {
        collector.ran();
        context.report({ phase: 'collect', ...step, window });
      },
    });
    return collector;
  } catch (error) {
    collector.dispose();
    throw error;
  }
}

/** Layers that share their input. */
async function quantizeLayers(
  { block, weights, layers, context }: BlockWork,
  nodes: readonly LinearNode[],
  statistics: Statistics,
  input: string,
): Promise<void> {
  const prepared = await prepareInputs(context.recipe, statistics, { ...context, where: input });
  const inputs = { ...prepared, statistics, tokens: statistics.tokens ?? null };
  try {
    for (const node of nodes) {
      const original = weights.get(node.name) as Tensor;
      using solved = await layers.solve(block, node, original, inputs);
      using packed = await layers.write(solved);
      weights.set(node.name, await unpacked(packed, context));
      original.dispose();
    }
  } finally {
    prepared.release();
  }
}

function byInput(linears: readonly LinearNode[]): Map<string, LinearNode[]> {
  const groups = new Map<string, LinearNode[]>();
  for (const node of linears) groups.set(node.input, [...(groups.get(node.input) ?? []), node]);
  return groups;
}

/** The block's tensors by name: weights as they are stored, biases in f32. */
async function loadBlock(source: TensorSource, block: BlockGraph, context: JobContext): Promise<Map<string, Weight>> {
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

async function unpacked(packed: QuantizedTensor, { threads, signal }: JobContext): Promise<Tensor> {
  const w = Tensor.zeros('f32', packed.shape);
  using program = new Program().dequantize(packed, w);
  try {
    await program.runAsync({ threads, signal });
    return w;
  } catch (error) {
    w.dispose();
    throw error;
  }
}
