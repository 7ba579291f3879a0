import { join } from 'node:path';
import { bytesOf, type QuantizedEntry } from '../formats/index.js';
import {
  type AllocatedLayer,
  allocateWidths,
  gridOf,
  isPinned,
  measureWidths,
  type Recipe,
  storageOf,
  type TensorSource,
  withWidths,
} from '../quantization/index.js';
import type { CalibrationInputs } from './calibration-inputs.js';
import { withClosing } from './closing.js';
import { FisherPass } from './fisher.js';
import type { JobContext } from './layer-writer.js';
import { entriesOf, linearsOf } from './preflight.js';

/**
 * Chooses the width of every layer within the recipe's budget: every layer is rounded at every width, and what a width costs is
 * the divergence that its errors bring to the model's output, to second order and by the diagonal of the Fisher matrix.
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
  const { recipe } = context;
  if (!recipe.allocation) return recipe;
  const losses = new Map<string, ReadonlyMap<number, number>>();
  const pass = await FisherPass.create(source, calibration, join(directory, 'allocation.scratch'), context);
  const measure = async () => {
    for await (const { block, weights, fisher } of pass.blocks())
      for (const { name } of block.linears) {
        const options = { grid: gridOf(recipe, name), storage: storageOf(recipe), widths: widthsOf(recipe, name) };
        const measured = { fisher: fisher.get(name)!, tokens: pass.tokens };
        const call = { ...context, where: name };
        losses.set(name, await measureWidths(weights.get(name)!, measured, options, call));
      }
  };
  await withClosing(measure, () => pass.dispose());
  const layers = layersWith((name, bits) => losses.get(name)!.get(bits)!, source, recipe);
  return withWidths(recipe, allocateWidths(layers, recipe.allocation.bitsPerWeight).widths);
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
