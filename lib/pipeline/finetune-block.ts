import { findMethod, finetunes, optionsOf, type SolvedLayer } from '../quantization/index.js';
import type { Tensor } from '../tensor/index.js';
import type { Activations } from './activation-store.js';
import type { BlockWork } from './block-work.js';
import type { SolvedNode } from './layer-writer.js';

/** A block whose linear layers are all solved; what enters it, and what the original block makes of that. */
export interface SolvedBlock {
  solved: readonly SolvedNode[];
  inputs: Activations;
  targets: Activations;
}

/** Runs the recipe's finetuning methods, one after the other, on the values of the layers and the block's norms. */
export async function finetuneBlock(work: BlockWork, { solved, inputs, targets }: SolvedBlock): Promise<void> {
  const { source, block, weights, runner, layers, context, step } = work;
  const { recipe, threads, signal, report } = context;
  const good = runner.goodWindows;
  const windows = {
    count: good.length,
    sequenceLength: runner.sequenceLength,
    input: (index: number, hidden: Tensor) => inputs.read(good[index]!, hidden),
    target: (index: number, hidden: Tensor) => targets.read(good[index]!, hidden),
  };
  for (const choice of recipe.finetune) {
    const method = findMethod(finetunes, choice.method, 'recipe.finetune');
    const input = {
      config: source.graph.config,
      block,
      weights,
      dtype: (tensor: string) => source.dtype(tensor),
      layers: solved.map(layerOf),
      windows,
      options: optionsOf(choice),
      onEpoch: (event: { epoch: number; epochs: number; loss: number }) =>
        report({ phase: 'finetune', block: step.block, blocks: step.blocks, method: method.name, ...event }),
    };
    const losses = await method.run(input, { threads, signal, where: block.prefix });
    layers.finetune.push({ block: block.index, method: method.name, ...losses });
  }
}

/** A solved layer as finetuning sees it: values that it puts there become the solution's. */
function layerOf({ node, grid, scaleDtype, solution, subBranch }: SolvedNode): SolvedLayer {
  return {
    node,
    grid,
    scaleDtype,
    codes: solution.codes,
    get values() {
      return solution.values;
    },
    set values(values) {
      solution.values = values;
    },
    subBranch,
  };
}
