import { z } from 'zod';
import { scalingGroups } from '../../models/index.js';
import { Program } from '../../ops/index.js';
import { Tensor, triangleElements } from '../../tensor/index.js';
import type { BlockSample, BlockTransform, BlockTransformInput, Call } from '../method.js';
import { asFloat32, runOptions } from '../passes.js';
import { chooseScaleDtype } from '../scale-dtype.js';
import { searchScales } from './awq-search.js';
import { clipToHessian, scaleMatrix } from './passes.js';
import { fold } from './scaling.js';

const options = z.strictObject({
  /** Ratios alpha that are tried: 0, 1 / steps, … below 1. */
  steps: z.int().min(1).max(100).default(20),
  /** Whether weights are then clipped, group by group. */
  clip: z.boolean().default(true),
  /** Calibration tokens that the search looks at: whole windows. */
  tokens: z.int().min(1).default(2048),
});

export type AwqOptions = z.infer<typeof options>;

/** What became of one scaling group. */
interface GroupReport {
  layers: string[];
  /** The chosen ratio; 0 leaves the group as it was. */
  alpha: number;
  /** ‖ΔY‖² / ‖Y‖² of the part of the block that reads the activation, its layers rounded to nearest: with it, and without. */
  error: number;
  plainError: number;
}

/**
 * AWQ (Lin et al., arXiv 2306.00978): scales the weights of channels with large inputs up, and whatever makes those inputs
 * down, so that rounding costs them less: s = mean|x|^alpha, normed by sqrt(max · min), with the alpha whose rounded layers
 * change the output of their part of the block least. Then clips weights where a finer grid gains more than clipping costs.
 */
export const awq: BlockTransform<AwqOptions> = {
  name: 'awq',
  scope: 'block',
  options,
  changes: (_, config, block) =>
    scalingGroups(config, block).flatMap(({ producer }) =>
      'norm' in producer ? [producer.norm] : producer.linear.bias ? [producer.linear.bias] : [],
    ),
  async run(input, call) {
    const { config, block, weights } = input;
    for (const { name } of block.linears) await widen(weights, name, call);
    using sample = await input.sample(input.options.tokens);
    const groups: GroupReport[] = [];
    const applied = new Map<string, Float64Array>();
    for (const group of scalingGroups(config, block)) {
      const { scales, ...report } = await searchScales(group, input, sample, call);
      await fold(group, scales, input, call);
      applied.set(group.linears[0]!.input, scales);
      groups.push({ layers: group.linears.map(({ name }) => name), ...report });
    }
    if (!input.options.clip) return { groups };
    return { groups, clippedGroups: await clip(input, sample, applied, call) };
  },
};

/** The weights of a layer in f32. */
async function widen(weights: BlockTransformInput<AwqOptions>['weights'], name: string, call: Call): Promise<void> {
  const w = weights.get(name) as Tensor;
  const wide = await asFloat32(w, { ...call, where: name });
  if (wide === w) return;
  weights.set(name, wide);
  w.dispose();
}

/** Clips all layers but those that make scores, in the metric of their scaled inputs. @returns groups of weights clipped, by layer. */
async function clip(
  { config, block, weights, grid, storage }: BlockTransformInput<AwqOptions>,
  sample: BlockSample,
  applied: ReadonlyMap<string, Float64Array>,
  call: Call,
): Promise<Record<string, number>> {
  const scores = new Set(scalingGroups(config, block).flatMap((group) => group.scores));
  const clipped: Record<string, number> = {};
  for (const [input, x] of sample.inputs) {
    const layers = block.linears.filter((node) => node.input === input && !scores.has(node));
    if (!layers.length) continue;
    using hessian = await gram(x, applied.get(input), call);
    for (const { name } of layers) {
      const w = weights.get(name) as Tensor;
      const where = { ...call, where: name };
      const { scaleDtype } = await chooseScaleDtype(w, grid(name), storage, where);
      using before = Tensor.zeros('f32', w.shape);
      await scaleMatrix(w, {}, before, where);
      clipped[name] = await clipToHessian(w, hessian, { grid: grid(name), scaleDtype }, where);
      // Where nothing is left but weights too small for the type of the scales, which is settled.
      if ((await chooseScaleDtype(w, grid(name), storage, where)).scaleDtype === scaleDtype) continue;
      await scaleMatrix(before, {}, w, where);
      clipped[name] = 0;
    }
  }
  return clipped;
}

/** The sum, a packed triangle, of xᵀx of inputs x diag(scales)^-1. */
async function gram(x: Tensor, scales: Float64Array | undefined, call: Call): Promise<Tensor> {
  const k = x.shape[1] ?? 0;
  using scaled = Tensor.zeros('f32', x.shape);
  await scaleMatrix(x, { columns: scales?.map((s) => 1 / s) ?? null }, scaled, call);
  const hessian = Tensor.zeros('f64', [triangleElements(k)]);
  try {
    using program = new Program().accumulateGram(scaled, hessian);
    await program.runAsync(runOptions(call));
    return hessian;
  } catch (error) {
    hessian.dispose();
    throw error;
  }
}
