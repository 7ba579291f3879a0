import type { Checkpoint } from '../formats/index.js';
import { checkNames, checkTensor, type ModelGraph } from '../models/index.js';
import { Program, type Weight } from '../ops/index.js';
import { QuantizedTensor, Tensor } from '../tensor/index.js';

/**
 * Loads every tensor of the graph once, in its stored type: 16-bit matrices stay 16 bits, packed ones packed. Only
 * biases become f32, as the operators want them.
 *
 * @throws `LUTRA_E_NOT_FOUND`, `LUTRA_E_SHAPE`, `LUTRA_E_DTYPE`, `LUTRA_E_UNSUPPORTED_MODEL` before anything is loaded,
 *   and what `Checkpoint.load` throws.
 */
export async function loadWeights(
  checkpoint: Checkpoint,
  graph: ModelGraph,
  signal: AbortSignal | undefined,
): Promise<Map<string, Weight>> {
  const where = checkpoint.directory;
  checkNames(graph, checkpoint.tensors, where);
  for (const name of graph.shapes.keys()) checkTensor(graph, checkpoint.tensor(name), where);
  const biases = new Set(graph.blocks.flatMap((block) => block.linears.map(({ bias }) => bias)));
  const weights = new Map<string, Weight>();
  try {
    for (const name of graph.shapes.keys()) {
      const loaded = await checkpoint.load(name, { signal });
      weights.set(name, biases.has(name) ? inSinglePrecision(loaded) : loaded);
    }
    return weights;
  } catch (error) {
    disposeWeights(weights);
    throw error;
  }
}

export function disposeWeights(weights: Map<string, Weight>): void {
  for (const weight of weights.values()) weight.dispose();
  weights.clear();
}

function inSinglePrecision(bias: Weight): Weight {
  if (bias instanceof QuantizedTensor || bias.dtype === 'f32') return bias;
  const single = Tensor.zeros('f32', bias.shape);
  using program = new Program().convert(bias, single);
  program.run();
  bias.dispose();
  return single;
}
