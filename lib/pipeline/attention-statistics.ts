import { HeadHessianCollector, type RowHessianCollector, valueRowHessians } from '../calibration/index.js';
import { type LinearNode, rolesOf } from '../models/index.js';
import { asFloat32, type HeadStatistics, needsOf } from '../quantization/index.js';
import { type Tensor, triangleElements } from '../tensor/index.js';
import type { BlockWork } from './block-work.js';

/** Bytes of the Hessians of value heads that are in memory together; one head's are, however large. */
export const headHessianBytes = 2 ** 28;

/** What a block's attention tells of its projections besides the Hessian of their inputs. */
export interface AttentionStatistics {
  readonly rowHessians: ReadonlyMap<LinearNode, Tensor>;
  /** Whether the heads of the value projection have Hessians of their own: see `headStatistics`. */
  readonly headHessians: boolean;
  [Symbol.dispose](): void;
}

/** Row Hessians of the projections that the recipe's method has them for. */
export async function attentionStatistics(
  work: BlockWork,
  collected: RowHessianCollector,
): Promise<AttentionStatistics> {
  const needs = needsOf(work.context.recipe);
  const { query, key } = collected.take(work.runner.sequenceLength);
  const { q, k, v } = rolesOf(work.block);
  const rowHessians = new Map([
    [q, query],
    [k, key],
  ]);
  const dispose = () => {
    for (const tensor of rowHessians.values()) tensor.dispose();
  };
  try {
    if (needs.includes('valueRows')) rowHessians.set(v, await valueRows(work));
  } catch (error) {
    dispose();
    throw error;
  }
  return { rowHessians, headHessians: needs.includes('headHessians'), [Symbol.dispose]: dispose };
}

async function valueRows({ source, block, weights, context }: BlockWork): Promise<Tensor> {
  const { name } = rolesOf(block).o;
  const stored = weights.get(name) as Tensor;
  const output = await asFloat32(stored, { ...context, where: name });
  try {
    return await valueRowHessians(output, source.graph.config, context);
  } finally {
    if (output !== stored) output.dispose();
  }
}

/**
 * The statistics of the value projection head by head, collected some heads at a time in passes of their own over the
 * windows, as many as `headHessianBytes` holds. The block's query and key projections must still be those to be collected
 * with.
 */
export async function* headStatistics(
  { source, block, weights, runner, context, step }: BlockWork,
  rowHessian: Tensor | undefined,
  tokens: number | null,
): AsyncGenerator<HeadStatistics> {
  const { config } = source.graph;
  const { kvHeads, hiddenSize } = config;
  const together = Math.max(1, Math.floor(headHessianBytes / (8 * triangleElements(hiddenSize))));
  for (let first = 0; first < kvHeads; first += together) {
    const count = Math.min(together, kvHeads - first);
    const collector = new HeadHessianCollector(config, first, count);
    try {
      await runner.run(block, weights, {
        attentionTap: collector.tap,
        attentionOnly: true,
        onWindow: (window) => context.report({ phase: 'collect', ...step, window }),
      });
      for (let head = 0; head < count; head++) {
        using one = collector.hessians.rows(head, head + 1);
        using hessian = one.reshape([one.elements]);
        using rows = rowHessian?.rows(first + head, first + head + 1);
        yield { hessian, rowHessian: rows, tokens: tokens ?? undefined, heads: kvHeads };
      }
    } finally {
      collector.dispose();
    }
  }
}
