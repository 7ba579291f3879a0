import { lutraError } from '../errors.js';
import type { Checkpoint, QuantizedEntry } from '../formats/index.js';
import { checkNames, checkTensor, type LinearNode, type ModelGraph } from '../models/index.js';
import {
  asFloat32,
  type Call,
  chooseScaleDtype,
  gridOf,
  layoutOf,
  matchesLayer,
  pairOf,
  type Recipe,
  refuseNonFinite,
  type ScaleDtype,
  storageOf,
  type TensorSource,
} from '../quantization/index.js';
import { checkRank } from '../tensor/index.js';
import type { Progress } from './progress.js';

export const linearsOf = (graph: ModelGraph): LinearNode[] => graph.blocks.flatMap(({ linears }) => linears);

/**
 * Checks what headers tell: every tensor is there in the shape that config.json implies, and every override names a layer.
 *
 * @returns sentences on what is there besides
 * @throws `LUTRA_E_NOT_FOUND`, `LUTRA_E_SHAPE`, `LUTRA_E_DTYPE`, `LUTRA_E_UNSUPPORTED_MODEL`, `LUTRA_E_OPTION`
 */
export function checkPlan(source: Checkpoint, graph: ModelGraph, recipe: Recipe): string[] {
  const extra = checkNames(graph, source.tensors, source.directory);
  for (const name of graph.shapes.keys()) checkTensor(graph, source.tensor(name), source.directory);
  const layers = linearsOf(graph);
  recipe.overrides.forEach(({ match }, index) => {
    if (!layers.some(({ name }) => matchesLayer(match, name)))
      throw lutraError('LUTRA_E_OPTION', {
        message: 'the override matches no layer',
        where: `recipe.overrides.${index}.match`,
        found: `'${match}'`,
        expected: `names like ${layers[0]?.name}`,
      });
  });
  return extra.map((name) => `${name} belongs to no layer of the model: it is copied as it is`);
}

/** How every layer is going to be stored, in the order of the data flow. */
export function entriesOf(
  graph: ModelGraph,
  recipe: Recipe,
  scaleDtypes: ReadonlyMap<string, ScaleDtype>,
): Map<string, QuantizedEntry> {
  const storage = storageOf(recipe);
  const subBranch = pairOf(recipe);
  const entries = linearsOf(graph).map(({ name, outFeatures, inFeatures }): [string, QuantizedEntry] => {
    const layout = layoutOf(gridOf(recipe, name), storage, outFeatures, inFeatures);
    const scaleDtype = scaleDtypes.get(name) ?? 'f16';
    const stored = { layout, scaleDtype, offsetDtype: layout.offsets === 'real' ? scaleDtype : null };
    if (subBranch) checkRank(subBranch.rank, outFeatures, inFeatures, name);
    return [name, subBranch ? { ...stored, subBranch } : stored];
  });
  return new Map(entries);
}

/**
 * Reads all weights once, before the long work: a NaN in the last layer is found now, and the header of the output can say
 * which type each layer's scales have.
 *
 * @throws `LUTRA_E_NON_FINITE`
 */
export async function inspectWeights(
  source: TensorSource,
  recipe: Recipe,
  call: Omit<Call, 'where'>,
  report: (event: Progress) => void,
): Promise<Map<string, ScaleDtype>> {
  const scaleDtypes = new Map<string, ScaleDtype>();
  const storage = storageOf(recipe);
  const layers = new Set(linearsOf(source.graph).map(({ name }) => name));
  for (const name of source.graph.shapes.keys()) {
    const where = { ...call, where: name };
    using stored = await source.load(name, call);
    await refuseNonFinite(stored, where);
    if (!layers.has(name)) continue;
    const w = await asFloat32(stored, where);
    try {
      scaleDtypes.set(name, (await chooseScaleDtype(w, gridOf(recipe, name), storage, where)).scaleDtype);
    } finally {
      if (w !== stored) w.dispose();
    }
    report({ phase: 'preflight', layer: name, index: scaleDtypes.size, layers: layers.size });
  }
  return scaleDtypes;
}
