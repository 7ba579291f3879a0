import { HessianCollector } from '../calibration/index.js';
import type { Checkpoint } from '../formats/index.js';
import type { BlockGraph, LinearNode, ModelGraph } from '../models/index.js';
import { Program, type Weight } from '../ops/index.js';
import { asFloat32, prepareInputs } from '../quantization/index.js';
import { type QuantizedTensor, Tensor } from '../tensor/index.js';
import type { ActivationStore } from './activation-store.js';
import { BlockRunner } from './block-runner.js';
import type { CalibrationInputs } from './calibration-inputs.js';
import type { JobContext, LayerWriter } from './layer-writer.js';

/** Methods that need no statistics: one matrix after another. */
export async function streamMatrices(
  source: Checkpoint,
  graph: ModelGraph,
  layers: LayerWriter,
  context: JobContext,
): Promise<void> {
  const { recipe, signal } = context;
  const prepared = await prepareInputs(recipe, {}, { ...context, where: source.directory });
  const inputs = { ...prepared, statistics: {}, tokens: null };
  try {
    for (const block of graph.blocks)
      for (const node of block.linears) {
        using w = (await source.load(node.name, { signal })) as Tensor;
        (await layers.quantize(block, node, w, inputs)).dispose();
      }
  } finally {
    prepared.release();
  }
}

/**
 * Methods that need Hessians: block after block. A block's Hessians are those of its original weights, its inputs those that
 * the quantized blocks before it give (GPTQ, arXiv 2210.17323, section 4). One block of weights is in memory at a time.
 */
export async function streamBlocks(
  source: Checkpoint,
  graph: ModelGraph,
  layers: LayerWriter,
  calibration: CalibrationInputs,
  store: ActivationStore,
  context: JobContext,
): Promise<void> {
  const { windows, sequenceLength } = calibration;
  const runner = new BlockRunner(graph.config, sequenceLength, windows.length, store, context);
  try {
    using table = (await source.load(graph.embedding, context)) as Tensor;
    await runner.embed(table, windows, (window) => context.report({ phase: 'embed', window, windows: windows.length }));
    table.dispose();
    for (const block of graph.blocks) {
      const weights = await loadBlock(source, block, context);
      try {
        const step = { block: block.index + 1, blocks: graph.blocks.length, windows: windows.length };
        await quantizeBlock(block, weights, runner, layers, context, step);
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

/** Collects the block's Hessians, then replaces each linear layer's weights by what its packed ones stand for. */
async function quantizeBlock(
  block: BlockGraph,
  weights: Map<string, Weight>,
  runner: BlockRunner,
  layers: LayerWriter,
  context: JobContext,
  step: { block: number; blocks: number; windows: number },
): Promise<void> {
  const collector = new HessianCollector();
  try {
    await runner.run(block, weights, {
      tap: collector.tap,
      keep: false,
      onWindow: (window) => {
        collector.ran();
        context.report({ phase: 'collect', ...step, window });
      },
    });
    for (const [input, nodes] of byInput(block.linears)) {
      const { hessian, tokens } = collector.take(input);
      using statistics = { hessian, tokens, [Symbol.dispose]: () => hessian.dispose() };
      const prepared = await prepareInputs(context.recipe, statistics, { ...context, where: input });
      try {
        for (const node of nodes) {
          const original = weights.get(node.name) as Tensor;
          using packed = await layers.quantize(block, node, original, { ...prepared, statistics, tokens });
          weights.set(node.name, await unpacked(packed, context));
          original.dispose();
        }
      } finally {
        prepared.release();
      }
    }
  } finally {
    collector.dispose();
  }
}

function byInput(linears: readonly LinearNode[]): Map<string, LinearNode[]> {
  const groups = new Map<string, LinearNode[]>();
  for (const node of linears) groups.set(node.input, [...(groups.get(node.input) ?? []), node]);
  return groups;
}

/** The block's tensors by name: weights as they are stored, biases in f32. */
async function loadBlock(source: Checkpoint, block: BlockGraph, context: JobContext): Promise<Map<string, Weight>> {
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
