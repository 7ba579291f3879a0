import { join } from 'node:path';
import { HessianCollector } from '../calibration/index.js';
import { bytesOf, type QuantizedEntry } from '../formats/index.js';
import { type BlockGraph, blockParts } from '../models/index.js';
import type { Weight } from '../ops/index.js';
import {
  type AllocatedLayer,
  allocateWidths,
  gridOf,
  isPinned,
  measureWidths,
  type Recipe,
  type Sensitivity,
  storageOf,
  type TensorSource,
  withWidths,
} from '../quantization/index.js';
import type { Tensor } from '../tensor/index.js';
import { ActivationStore } from './activation-store.js';
import { BlockRunner } from './block-runner.js';
import { loadBlock } from './block-work.js';
import type { CalibrationInputs } from './calibration-inputs.js';
import type { JobContext } from './layer-writer.js';
import { entriesOf, linearsOf } from './preflight.js';

/**
 * Chooses the width of every layer within the recipe's budget: the model goes through the calibration text once in full
 * precision, a block in memory at a time, and every layer is measured at every width against its inputs' Hessian. What a
 * width costs is the error that it brings to the residual stream: the layer's relative error times the share of the stream
 * behind the block that its part of the block, attention or feed-forward, has added.
 *
 * @returns the recipe with the chosen widths as overrides.
 * @throws what `checkBudget` throws
 */
export async function allocate(
  source: TensorSource,
  calibration: CalibrationInputs,
  directory: string,
  context: JobContext,
): Promise<Recipe> {
  const { recipe, signal } = context;
  if (!recipe.allocation) return recipe;
  const { bitsPerWeight } = recipe.allocation;
  const losses = new Map<string, ReadonlyMap<number, number>>();
  const store = await ActivationStore.create(join(directory, 'allocation.scratch'), signal);
  const { windows, sequenceLength } = calibration;
  const runner = new BlockRunner(source.graph.config, sequenceLength, windows.length, store, context);
  try {
    using table = await source.load(source.graph.embedding, context);
    await runner.embed(table, windows, (window) => context.report({ phase: 'embed', window, windows: windows.length }));
    table.dispose();
    for (const block of source.graph.blocks) {
      const weights = await loadBlock(source, block, context);
      try {
        const measured = await measureBlock(
          block,
          weights,
          { source, runner, store, windows: windows.length },
          context,
        );
        for (const [name, ofLayer] of measured) losses.set(name, ofLayer);
      } finally {
        for (const tensor of weights.values()) tensor.dispose();
      }
    }
  } finally {
    runner.dispose();
    await store.dispose();
  }
  const layers = layersWith((name, bits) => losses.get(name)!.get(bits)!, source, recipe);
  return withWidths(recipe, allocateWidths(layers, bitsPerWeight).widths);
}

/**
 * What headers tell of the recipe's budget, before any work.
 *
 * @throws `LUTRA_E_OPTION` where it is below what the fewest bits take
 */
export function checkBudget(source: TensorSource, recipe: Recipe): void {
  if (!recipe.allocation) return;
  const layers = layersWith(() => 0, source, recipe);
  allocateWidths(layers, recipe.allocation.bitsPerWeight);
}

/** Every layer with its widths and what they cost. */
function layersWith(
  losses: (name: string, bits: number) => number,
  source: TensorSource,
  recipe: Recipe,
): AllocatedLayer[] {
  const bytes = bytesByWidth(source, recipe);
  return linearsOf(source.graph).map(({ name, outFeatures, inFeatures }) => ({
    name,
    weights: outFeatures * inFeatures,
    options: widthsOf(recipe, name).map((bits) => ({ bits, bytes: bytes(name, bits), loss: losses(name, bits) })),
  }));
}

/** The widths that a layer may have. */
const widthsOf = (recipe: Recipe, name: string): number[] =>
  isPinned(recipe, name) ? [gridOf(recipe, name).bits] : recipe.allocation!.widths;

/** Bytes that are stored for a layer at a width. */
function bytesByWidth({ graph }: TensorSource, recipe: Recipe): (name: string, bits: number) => number {
  const entries = new Map<number, ReadonlyMap<string, QuantizedEntry>>();
  return (name, bits) => {
    const everywhere = new Map(linearsOf(graph).map((node) => [node.name, bits]));
    const atWidth = entries.get(bits) ?? entriesOf(graph, withWidths(recipe, everywhere), new Map());
    entries.set(bits, atWidth);
    return bytesOf(name, atWidth.get(name)!);
  };
}

/** The windows on their way through the model. */
interface Pass {
  source: TensorSource;
  runner: BlockRunner;
  store: ActivationStore;
  windows: number;
}

/** Runs the block, and measures its layers: by name, the loss of every width that a layer may have. */
async function measureBlock(
  block: BlockGraph,
  weights: ReadonlyMap<string, Weight>,
  { source, runner, store, windows }: Pass,
  context: JobContext,
): Promise<Map<string, Map<number, number>>> {
  const { recipe } = context;
  const collector = new HessianCollector();
  const losses = new Map<string, Map<number, number>>();
  const hessians = new Map<string, Tensor>();
  try {
    await runner.run(block, weights, {
      tap: collector.tap,
      into: store,
      onWindow: (window) => {
        collector.ran();
        const [at, blocks] = [block.index + 1, source.graph.blocks.length];
        context.report({ phase: 'allocate', block: at, blocks, window, windows });
      },
    });
    const stream = await runner.energy();
    for (const { linears, output } of blockParts(block)) {
      const measured = new Map<string, Sensitivity>();
      for (const { name, input } of linears) {
        if (!hessians.has(input)) hessians.set(input, collector.take(input).hessian);
        const options = { grid: gridOf(recipe, name), storage: storageOf(recipe), widths: widthsOf(recipe, name) };
        const call = { ...context, where: name };
        measured.set(name, await measureWidths(weights.get(name) as Tensor, hessians.get(input)!, options, call));
      }
      const share = measured.get(output.name)!.energy / stream;
      for (const [name, { errors }] of measured)
        losses.set(name, new Map([...errors].map(([bits, error]) => [bits, error * share])));
    }
    return losses;
  } finally {
    for (const hessian of hessians.values()) hessian.dispose();
    collector.dispose();
  }
}
