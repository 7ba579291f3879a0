import { type BlockGraph, type LinearNode, type LlamaConfig, rolesOf } from '../models/index.js';
import {
  findSolver,
  gridOf,
  isSequential,
  layoutOf,
  needsOf,
  optionsOf,
  pairOf,
  type Recipe,
  storageOf,
  type TensorSource,
  unmeasuredWork,
} from '../quantization/index.js';
import {
  codesBytes,
  dtypeBytes,
  elements,
  offsetsElements,
  scalesElements,
  triangleElements,
} from '../tensor/index.js';
import { headHessianBytes } from './attention-statistics.js';
import type { WindowSizes } from './calibration-inputs.js';
import { logitRows } from './fisher.js';

/** What a job keeps in memory together, in bytes. */
export interface MemoryParts {
  /** Node, the addon, and what JavaScript allocates. */
  process: number;
  /** The calibration text: its bytes, the string that they spell, and its tokens, of which there are no more than bytes. */
  text: number;
  /** Weights of the block, or of the one matrix, at hand: as they are stored, and in fp32 where they are done. */
  weights: number;
  /** Hessians of the inputs of layers that are still to be solved, each a packed triangle of f64. */
  hessians: number;
  /** One window's activations inside a block. */
  window: number;
  /** What solving and measuring one matrix takes besides. */
  solver: number;
}

export interface MemoryEstimate {
  /** An upper estimate of the process's largest resident memory. */
  peakBytes: number;
  /** What the job does then. */
  at: string;
  parts: MemoryParts;
}

/** JavaScript's heap, buffers of files, and what the allocator keeps: measured on jobs, generously. */
const processReserve = 96 * 2 ** 20;
/** What small allocations, levels, scales and the rounding up of all parts take, as a share. */
const slack = 1.05;

type Moment = { at: string } & Partial<Omit<MemoryParts, 'process'>>;

/**
 * The largest resident memory of a job, from the shapes alone.
 *
 * @param sizes of the windows; null where no text is read
 * @param processBytes resident now, before the job
 */
export function estimateMemory(
  { model, recipe, sizes }: { model: TensorSource; recipe: Recipe; sizes: WindowSizes | null },
  processBytes: number,
): MemoryEstimate {
  const moments: Moment[] = [
    ...(sizes ? [{ at: 'encoding the text', text: encodingBytes(sizes.textBytes) }] : []),
    ...inspection(model, recipe),
    ...(sizes ? inBlocks(model, recipe, sizes) : inMatrices(model, recipe)),
  ];
  const ids = sizes ? 4 * (sizes.samples + sizes.heldOut) * sizes.sequenceLength : 0;
  const estimates = moments.map(({ at, text = 0, weights = 0, hessians = 0, window = 0, solver = 0 }) => {
    const parts = { text, weights, hessians, window, solver: Math.ceil(solver) };
    const job = Object.values(parts).reduce((sum, bytes) => sum + bytes, 0);
    const process = Math.round(processBytes + processReserve + ids + (slack - 1) * job);
    return { peakBytes: process + job, at, parts: { process, ...parts } };
  });
  return estimates.reduce((most, one) => (one.peakBytes > most.peakBytes ? one : most));
}

/** A text's bytes and its string (two bytes a unit at most), 4 bytes a token, in pieces and joined, and what the tokenizer drops. */
const encodingBytes = (textBytes: number): number => 16 * textBytes;

/** Every tensor once, as it is stored and in fp32; transforms of the whole model make a third one. */
function inspection(model: TensorSource, recipe: Recipe): Moment[] {
  const made = recipe.transforms.length ? 4 : 0;
  return [...model.graph.shapes].map(([name, shape]) => ({
    at: `checking ${name}`,
    weights: elements(shape) * (dtypeBytes[model.dtype(name)] + 4 + made),
  }));
}

function inMatrices(model: TensorSource, recipe: Recipe): Moment[] {
  return model.graph.blocks.flatMap(({ linears }) =>
    linears.map((node) => ({
      at: `solving ${node.name}`,
      weights: weightsOf(node) * dtypeBytes[model.dtype(node.name)],
      solver: solverBytes(model, recipe, node),
    })),
  );
}

/** The moments of a job that takes windows through blocks; blocks of the same shapes are the same. */
function inBlocks(model: TensorSource, recipe: Recipe, sizes: WindowSizes): Moment[] {
  const { config, blocks } = model.graph;
  const window = windowBytes(config, sizes.sequenceLength);
  const moments: Moment[] = [{ at: 'embedding the text', weights: tensorBytes(model, model.graph.embedding), window }];
  // Blocks differ by nothing but the types that their tensors are stored in.
  for (const block of largestBlocks(model, blocks)) {
    if (recipe.allocation) moments.push(...choosing(model, block, window));
    const work = { model, recipe, sizes, window };
    const held = heldBytes(block, work);
    moments.push(...collecting(block, work, held), ...tuning(block, work, held), ...solving(block, work, held));
  }
  return moments;
}

/** The pass that measures what every weight is worth, forwards and backwards, in fp32. */
function choosing(model: TensorSource, block: BlockGraph, window: number): Moment[] {
  const { config, lmHead } = model.graph;
  const head = elements(model.graph.shapes.get(lmHead)!);
  const weights = 4 * sum(block.linears, weightsOf);
  const largest = Math.max(...block.linears.map(weightsOf));
  return [
    {
      at: 'taking derivatives of the output layer',
      weights: head * (4 + dtypeBytes[model.dtype(lmHead)]),
      window: 4 * window + 4 * logitRows * config.vocabularySize,
    },
    // Weights, the squares of their derivatives, and one layer's derivatives; then one layer at every width.
    { at: `taking derivatives of ${block.prefix}`, weights: 2 * weights, window: 4 * window, solver: 20 * largest },
  ];
}

interface Work {
  model: TensorSource;
  recipe: Recipe;
  sizes: WindowSizes;
  window: number;
}

/** What a block's moments have in common, in bytes; `rows` are the statistics of attention. */
interface BlockBytes {
  /** Its tensors as they are stored, and with its layers in fp32. */
  stored: number;
  whole: number;
  /** The original weights that stay for the comparison of held-out windows, and the Hessians of these. */
  kept: number;
  heldOut: number;
  /** The Hessians that calibration windows are collected in together. */
  together: number;
  rows: number;
}

function heldBytes(block: BlockGraph, { model, recipe, sizes }: Work): BlockBytes {
  const needs = needsOf(recipe);
  const stored = sum(block.tensors, (name) => tensorBytes(model, name));
  const hessians = [...inputsOf(block).values()].map(triangleBytes);
  const all = sum(hessians, (bytes) => bytes);
  return {
    stored,
    whole: 4 * sum(block.linears, weightsOf) + stored - sum(block.linears, ({ name }) => tensorBytes(model, name)),
    kept: sizes.heldOut ? stored : 0,
    heldOut: sizes.heldOut ? 2 * all : 0,
    together: needs.includes('hessian') ? (isSequential(recipe) ? Math.max(...hessians) : all) : 0,
    rows: needs.includes('attention') ? attentionBytes(model.graph.config) : 0,
  };
}

function collecting(block: BlockGraph, { sizes, window }: Work, held: BlockBytes): Moment[] {
  const { stored, whole, kept, heldOut, together, rows } = held;
  const gram = gramBytes(Math.max(...inputsOf(block).values()), sizes.sequenceLength);
  return [
    {
      at: `collecting in ${block.prefix}`,
      weights: stored,
      hessians: together + heldOut + rows,
      window: window + (together || heldOut ? gram : 0),
    },
    { at: `feeding the block behind ${block.prefix}`, weights: whole + kept, window },
  ];
}

function tuning(block: BlockGraph, { recipe, window }: Work, { stored, whole, kept, heldOut }: BlockBytes): Moment[] {
  if (!recipe.transforms.length && !recipe.finetune.length) return [];
  return [
    {
      at: `tuning ${block.prefix}`,
      weights: whole + stored + kept,
      hessians: heldOut,
      window: recipe.finetune.length ? 4 * window + tunedBytes(block) : 4 * window,
      solver: Math.max(...block.linears.map((node) => 16 * weightsOf(node))),
    },
  ];
}

/**
 * Layer after layer, by input. Solved ones wait as packed weights, or are there in fp32 where the block runs with them; Hessians go
 * when their layers are solved.
 */
function solving(block: BlockGraph, { model, recipe, window }: Work, held: BlockBytes): Moment[] {
  const needs = needsOf(recipe);
  const { q, v } = rolesOf(block);
  const moments: Moment[] = [];
  let { stored: weights, together: waiting } = held;
  for (const [input, width] of inputsOf(block)) {
    for (const node of block.linears.filter((one) => one.input === input)) {
      const heads = node === v && needs.includes('headHessians') ? headBytes(model.graph.config) : 0;
      moments.push({
        at: `solving ${node.name}`,
        weights: weights + held.kept,
        hessians: waiting + held.heldOut + (node.input === q.input ? held.rows : 0) + heads,
        window: heads ? window : 0,
        solver: solverBytes(model, recipe, node),
      });
      weights += isSequential(recipe) ? 4 * weightsOf(node) - tensorBytes(model, node.name) : packedBytes(recipe, node);
      if (recipe.finetune.length) weights += 2 * weightsOf(node);
    }
    if (needs.includes('hessian') && !isSequential(recipe)) waiting -= triangleBytes(width);
  }
  return moments;
}

/** What the block's layers read, with its width. */
const inputsOf = ({ linears }: BlockGraph): Map<string, number> =>
  new Map(linears.map(({ input, inFeatures }) => [input, inFeatures]));

/** A packed matrix at most: values in fp32, which few matrices need, and 4 bits where widths are still to be chosen. */
function packedBytes(recipe: Recipe, { name, outFeatures, inFeatures }: LinearNode): number {
  const given = gridOf(recipe, name);
  const grid = recipe.allocation ? { ...given, bits: 4 } : given;
  const layout = layoutOf(grid, storageOf(recipe), outFeatures, inFeatures);
  const values =
    scalesElements(layout) + offsetsElements(layout) + (pairOf(recipe)?.rank ?? 0) * (outFeatures + inFeatures);
  return codesBytes(layout) + 4 * values;
}

/** What a solver takes for one matrix, beside the stored one and the Hessian. */
function solverBytes(model: TensorSource, recipe: Recipe, node: LinearNode): number {
  const { perWeight, hessians } = findSolver(recipe.solver.method).work?.(optionsOf(recipe.solver)) ?? unmeasuredWork;
  const { groupSize, bits } = gridOf(recipe, node.name);
  const converted = model.dtype(node.name) === 'f32' ? 0 : 4;
  const levels = (4 * 2 ** bits * 3) / (groupSize === -1 ? node.inFeatures : groupSize);
  const pair = recipe.lowRank ? 16 : 0;
  const squares = needsOf(recipe).length ? hessians + (recipe.lowRank ? 2 : 0) : 0;
  return weightsOf(node) * (converted + perWeight + levels + pair) + squares * triangleBytes(node.inFeatures);
}

/** f32 with a row a token: the residual stream, what a block makes of it, and the keys and values. */
function windowBytes({ hiddenSize, intermediateSize, heads, kvHeads, headDim }: LlamaConfig, tokens: number): number {
  return 4 * tokens * (2 * hiddenSize + 2 * heads * headDim + 4 * kvHeads * headDim + 2 * intermediateSize);
}

/** The rows of x that a sum of xᵀx reads, laid out twice. */
const gramBytes = (width: number, tokens: number): number => 8 * width * Math.min(tokens, 2048);
const triangleBytes = (width: number): number => 8 * triangleElements(width);
const attentionBytes = ({ heads, kvHeads, headDim }: LlamaConfig): number => 8 * 3 * (heads + kvHeads) * headDim ** 2;

/** The Hessians of value heads that are collected together, and the factor of one. */
function headBytes({ hiddenSize, kvHeads }: LlamaConfig): number {
  const one = triangleBytes(hiddenSize);
  return one * Math.min(kvHeads, Math.max(1, Math.floor(headHessianBytes / one))) + one;
}

/** Codes, values and gradients of a block's layers. */
const tunedBytes = ({ linears }: BlockGraph): number => 10 * sum(linears, weightsOf);

function largestBlocks(model: TensorSource, blocks: readonly BlockGraph[]): BlockGraph[] {
  const bytes = blocks.map(({ tensors }) => sum(tensors, (name) => tensorBytes(model, name)));
  const most = Math.max(...bytes);
  return blocks.filter((_, index) => bytes[index] === most).slice(0, 1);
}

const weightsOf = ({ outFeatures, inFeatures }: LinearNode): number => outFeatures * inFeatures;
const tensorBytes = (model: TensorSource, name: string): number =>
  elements(model.graph.shapes.get(name)!) * dtypeBytes[model.dtype(name)];
const sum = <T>(items: readonly T[], of: (item: T) => number): number =>
  items.reduce((total, item) => total + of(item), 0);
