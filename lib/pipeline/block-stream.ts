import { HessianCollector, RowHessianCollector } from '../calibration/index.js';
import { type BlockGraph, type LinearNode, rolesOf } from '../models/index.js';
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
import { type AttentionStatistics, attentionStatistics, headStatistics } from './attention-statistics.js';
import { finetuneBlock } from './block-finetune.js';
import { BlockRunner } from './block-runner.js';
import type { CalibrationInputs } from './calibration-inputs.js';
import type { HeldOutWindows } from './held-out.js';
import type { JobContext, LayerWriter, SolvedNode } from './layer-writer.js';
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

/** What enters the block at hand; where blocks are finetuned, what the original block makes of that; and what is held out. */
export interface ActivationStores {
  inputs: ActivationStore;
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

/** Keeps what the original block makes of its inputs, where that is what finetuning aims at. */
async function runOriginal({ block, weights, runner, stores, context, step }: BlockWork): Promise<void> {
  if (!stores.targets) return;
  await runner.run(block, weights, {
    into: stores.targets,
    onWindow: (window) => context.report({ phase: 'target', ...step, window }),
  });
}

/** Quantizes the block's linear layers, finetunes them where the recipe says so, and writes them. */
async function quantizeBlock(work: BlockWork): Promise<void> {
  const { inputs, targets } = work.stores;
  if (!targets) return await solveBlock(work, null);
  const solved: SolvedNode[] = [];
  try {
    await solveBlock(work, solved);
    await finetuneBlock(work, { solved, inputs, targets });
    for (const layer of solved) {
      using packed = await work.layers.write(layer);
      await replaceWeight(work, layer.node, packed);
    }
  } finally {
    for (const layer of solved) layer[Symbol.dispose]();
  }
}

/**
 * Solves the block's linear layers, input by input in the order of the data flow, and writes them, or keeps them in `solved`
 * for finetuning.
 */
async function solveBlock(work: BlockWork, solved: SolvedNode[] | null): Promise<void> {
  const { recipe } = work.context;
  const needed = needsOf(recipe).includes('hessian');
  const sequential = isSequential(recipe);
  let collected: Collected | null = null;
  try {
    for (const [input, nodes] of byInput(work.block.linears)) {
      if (needed && (sequential || !collected)) {
        collected?.dispose();
        collected = await collectStatistics(work, sequential ? input : null);
      }
      const taken = collected?.hessians.take(input);
      try {
        const { rows = null } = nodes.includes(rolesOf(work.block).q) ? (collected ?? {}) : {};
        using attention = rows && (await attentionStatistics(work, rows));
        await solveLayers(work, nodes, taken ?? {}, { input, attention, solved });
      } finally {
        taken?.hessian.dispose();
      }
    }
  } finally {
    collected?.dispose();
  }
}

/** The statistics of a block, as they were collected. */
interface Collected {
  hessians: HessianCollector;
  /** Of the query and key projections, where the method asks for them. */
  rows: RowHessianCollector | null;
  dispose(): void;
}

/** The statistics of one input, or of everything that the block's linear layers read, in a pass with the block as it is now. */
async function collectStatistics(
  { source, block, weights, runner, context, step }: BlockWork,
  only: string | null,
): Promise<Collected> {
  const hessians = new HessianCollector(only);
  const rows = needsOf(context.recipe).includes('attention') ? new RowHessianCollector(source.graph.config) : null;
  const dispose = () => {
    hessians.dispose();
    rows?.dispose();
  };
  try {
    await runner.run(block, weights, {
      tap: hessians.tap,
      attentionTap: rows?.tap,
      onWindow: (window) => {
        hessians.ran();
        context.report({ phase: 'collect', ...step, window });
      },
    });
    return { hessians, rows, dispose };
  } catch (error) {
    dispose();
    throw error;
  }
}

/** Layers that share their input. */
async function solveLayers(
  work: BlockWork,
  nodes: readonly LinearNode[],
  statistics: Statistics,
  { input, attention, solved }: { input: string; attention: AttentionStatistics | null; solved: SolvedNode[] | null },
): Promise<void> {
  const { block, weights, layers, context } = work;
  const { tokens = null } = statistics;
  const prepared = await prepareInputs(context.recipe, statistics, { ...context, where: input });
  const byHead = (node: LinearNode) => node === rolesOf(block).v && attention?.headHessians === true;
  try {
    // Hessians of heads are collected with the queries and keys of the original weights: what needs them goes first.
    for (const node of [...nodes].sort((a, b) => Number(byHead(b)) - Number(byHead(a)))) {
      const original = weights.get(node.name) as Tensor;
      const rowHessian = attention?.rowHessians.get(node);
      const inputs = { ...prepared, statistics: { ...statistics, rowHessian }, tokens };
      const layer = byHead(node)
        ? await layers.solveHeads(block, node, original, { heads: headStatistics(work, rowHessian, tokens), tokens })
        : await layers.solve(block, node, original, inputs);
      solved?.push(layer);
      try {
        using packed = solved ? await layers.pack(layer) : await layers.write(layer);
        await replaceWeight(work, node, packed);
      } finally {
        if (!solved) layer[Symbol.dispose]();
      }
    }
  } finally {
    prepared.release();
  }
}

/** From here on the block's layer has the weights that its packed ones stand for. */
async function replaceWeight({ weights, context }: BlockWork, { name }: LinearNode, packed: QuantizedTensor) {
  const before = weights.get(name) as Tensor;
  weights.set(name, await unpacked(packed, context));
  before.dispose();
}

function byInput(linears: readonly LinearNode[]): Map<string, LinearNode[]> {
  const groups = new Map<string, LinearNode[]>();
  for (const node of linears) groups.set(node.input, [...(groups.get(node.input) ?? []), node]);
  return groups;
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
