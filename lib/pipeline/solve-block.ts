import { HessianCollector, RowHessianCollector } from '../calibration/index.js';
import { lutraError } from '../errors.js';
import { type LinearNode, rolesOf } from '../models/index.js';
import { Program } from '../ops/index.js';
import { isSequential, needsOf, prepareInputs, type Statistics } from '../quantization/index.js';
import { type QuantizedTensor, Tensor } from '../tensor/index.js';
import { type AttentionStatistics, attentionStatistics, headStatistics } from './attention-statistics.js';
import type { BlockWork } from './block-work.js';
import { finetuneBlock } from './finetune-block.js';
import type { JobContext, SolvedNode } from './layer-writer.js';

/** Quantizes the block's linear layers, finetunes them where the recipe says so, and writes them. */
export async function quantizeBlock(work: BlockWork): Promise<void> {
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
  // Where nothing runs through the block before it is solved, its packed weights wait: they are a fraction of those in f32.
  const waiting = sequential ? null : new Map<LinearNode, QuantizedTensor>();
  try {
    for (const [input, nodes] of byInput(work.block.linears)) {
      if (needed && (sequential || !collected)) {
        collected?.dispose();
        collected = await collectStatistics(work, sequential ? input : null);
      }
      const taken = collected?.hessians.take(input);
      try {
        if (taken) requireTokens(taken.tokens, work.runner, input);
        const { rows = null } = nodes.includes(rolesOf(work.block).q) ? (collected ?? {}) : {};
        using attention = rows && (await attentionStatistics(work, rows));
        await solveLayers(work, nodes, taken ?? {}, { input, attention, solved, waiting });
      } finally {
        taken?.hessian.dispose();
      }
    }
    for (const [node, packed] of waiting ?? []) {
      await replaceWeight(work, node, packed);
      packed.dispose();
    }
  } finally {
    for (const packed of waiting?.values() ?? []) packed.dispose();
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
      restart: () => {
        hessians.reset();
        rows?.reset();
      },
    });
    return { hessians, rows, dispose };
  } catch (error) {
    dispose();
    throw error;
  }
}

/** A Hessian that has lost a window, or has one twice, must not be solved with. */
function requireTokens(found: number, { tokens: expected }: BlockWork['runner'], where: string): void {
  if (found === expected) return;
  throw lutraError('LUTRA_E_INTERNAL', { message: 'the Hessian is not of all windows', where, found, expected });
}

interface Destination {
  input: string;
  attention: AttentionStatistics | null;
  /** Where layers go that are to be finetuned. */
  solved: SolvedNode[] | null;
  /** Where packed weights go until the block has them in place of its own; null where it has them at once. */
  waiting: Map<LinearNode, QuantizedTensor> | null;
}

/** Layers that share their input. */
async function solveLayers(
  work: BlockWork,
  nodes: readonly LinearNode[],
  statistics: Statistics,
  { input, attention, solved, waiting }: Destination,
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
        const packed = solved ? await layers.pack(layer) : await layers.write(layer);
        if (waiting) waiting.set(node, packed);
        else {
          using own = packed;
          await replaceWeight(work, node, own);
        }
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
