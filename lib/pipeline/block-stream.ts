import { prepareInputs, type TensorSource } from '../quantization/index.js';
import { BlockRunner } from './block-runner.js';
import { type ActivationStores, type BlockWork, loadBlock } from './block-work.js';
import type { CalibrationInputs } from './calibration-inputs.js';
import type { BadWindow } from './job.js';
import type { ActivationRecord, Journal } from './journal.js';
import type { JobContext, LayerWriter } from './layer-writer.js';
import { quantizeBlock } from './solve-block.js';
import { transformBlock } from './transform-block.js';
import { WindowScreen } from './window-screen.js';

/** What the blocks of a job are taken through with. */
export interface BlockStream {
  source: TensorSource;
  layers: LayerWriter;
  /** Where every block is recorded when it is finished; those that are recorded already are left out. */
  journal: Journal;
  context: JobContext;
}

/** Methods that need no statistics: one matrix after another. */
export async function streamMatrices({ source, layers, journal, context }: BlockStream): Promise<void> {
  const { recipe } = context;
  const { blocks } = source.graph;
  const prepared = await prepareInputs(recipe, {}, { ...context, where: recipe.solver.method });
  const inputs = { ...prepared, statistics: {}, tokens: null };
  try {
    for (const block of blocks.slice(journal.blocks.length)) {
      for (const node of block.linears) {
        using w = await source.load(node.name, context);
        using solved = await layers.solve(block, node, w, inputs);
        (await layers.write(solved)).dispose();
      }
      await journal.add(await layers.finishBlock(), null, context.signal);
      context.report({ phase: 'journal', block: block.index + 1, blocks: blocks.length });
    }
  } finally {
    prepared.release();
  }
}

/**
 * Methods that need the inputs of layers or blocks: block after block. A block's Hessians are those of its original weights,
 * or, for a sequential method, of those before a layer quantized; its inputs are those that the quantized blocks before it give
 * (GPTQ, arXiv 2210.17323, section 4). One block of weights is in memory at a time.
 */
export async function streamBlocks(
  { source, layers, journal, context }: BlockStream,
  calibration: CalibrationInputs,
  stores: ActivationStores,
): Promise<void> {
  const { graph } = source;
  const { windows, sequenceLength, record } = calibration;
  const screening = { ...context, budget: record.maxBadWindows, what: 'calibration window' };
  const note = (bad: BadWindow) => layers.badWindows.push(bad);
  const screen = new WindowScreen(windows.length, screening, journal.results.badWindows, note);
  const runner = new BlockRunner(graph.config, sequenceLength, windows.length, stores.inputs, screen, context);
  try {
    if (journal.blocks.length === 0) await embed(source, { runner, windows, stores }, context);
    for (const block of graph.blocks.slice(journal.blocks.length)) {
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
        const activations = step.block < step.blocks ? await advance(work) : null;
        await journal.add(await layers.finishBlock(), activations, context.signal);
        context.report({ phase: 'journal', block: step.block, blocks: step.blocks });
      } finally {
        for (const tensor of weights.values()) tensor.dispose();
      }
    }
  } finally {
    runner.dispose();
  }
}

async function embed(
  source: TensorSource,
  { runner, windows, stores }: Pick<BlockWork, 'runner' | 'stores'> & Pick<CalibrationInputs, 'windows'>,
  context: JobContext,
): Promise<void> {
  using table = await source.load(source.graph.embedding, context);
  await runner.embed(table, windows, (window) => context.report({ phase: 'embed', window, windows: windows.length }));
  stores.inputs.advance();
  await stores.heldOut?.embed(table);
}

/** Feeds the next block with what the quantized one makes of its inputs; on the disk, too. */
async function advance({ block, weights, runner, stores, context, step }: BlockWork): Promise<ActivationRecord> {
  await runner.run(block, weights, {
    into: stores.inputs,
    onWindow: (window) => context.report({ phase: 'advance', ...step, window }),
  });
  stores.inputs.advance();
  const inputs = await stores.inputs.sync();
  return { inputs, heldOut: (await stores.heldOut?.advance(block, weights)) ?? null };
}

/** Keeps what the original block makes of its inputs, where that is what finetuning aims at. */
async function runOriginal({ block, weights, runner, stores, context, step }: BlockWork): Promise<void> {
  if (!stores.targets) return;
  await runner.run(block, weights, {
    into: stores.targets,
    onWindow: (window) => context.report({ phase: 'target', ...step, window }),
  });
}
