import { lutraError } from '../errors.js';
import { type Checkpoint, nativeDtypes, type PlannedTensor, storedDtypes } from '../formats/index.js';
import type { ModelGraph } from '../models/index.js';
import {
  type BlockTransform,
  type Finetune,
  findMethod,
  finetunes,
  type MethodChoice,
  type ModelTransform,
  optionsOf,
  type Recipe,
  type TensorSource,
  transforms,
} from '../quantization/index.js';
import type { Dtype, Tensor } from '../tensor/index.js';

/** The model that is quantized: the checkpoint's tensors, changed by the recipe's transforms of whole models in turn. */
export function tensorSource(checkpoint: Checkpoint, graph: ModelGraph, recipe: Recipe): TensorSource {
  return recipe.transforms.reduce<TensorSource>((source, choice) => {
    const transform = findMethod(transforms, choice.method, 'recipe.transforms');
    return transform.scope === 'model' ? (transform as ModelTransform).apply(source, optionsOf(choice)) : source;
  }, new StoredTensors(checkpoint, graph));
}

class StoredTensors implements TensorSource {
  readonly changed: ReadonlySet<string> = new Set();

  constructor(
    private readonly checkpoint: Checkpoint,
    readonly graph: ModelGraph,
  ) {}

  dtype(name: string): Dtype {
    const { dtype } = this.checkpoint.tensor(name);
    const native = dtype && nativeDtypes[dtype];
    if (native) return native;
    throw lutraError('LUTRA_E_DTYPE', { message: 'lutra does not compute with this element type', where: name });
  }

  async load(name: string, options: { signal?: AbortSignal | undefined }): Promise<Tensor> {
    return (await this.checkpoint.load(name, options)) as Tensor;
  }
}

/** A block transform of the recipe with its options. */
export interface ChosenTransform {
  transform: BlockTransform;
  options: unknown;
}

export const blockTransforms = (recipe: Recipe): ChosenTransform[] =>
  recipe.transforms.flatMap((choice) => {
    const transform = findMethod(transforms, choice.method, 'recipe.transforms');
    return transform.scope === 'block' ? [{ transform, options: optionsOf(choice) }] : [];
  });

/** Every tensor besides the quantized layers that the job writes itself, as the transforms and finetuning leave it. */
export function replacedTensors(source: TensorSource, recipe: Recipe): PlannedTensor[] {
  const { config, blocks, shapes } = source.graph;
  const names = new Set(source.changed);
  for (const block of blocks) {
    for (const { transform, options } of blockTransforms(recipe))
      for (const name of transform.changes(options, config, block)) names.add(name);
    for (const choice of recipe.finetune)
      for (const name of finetuneOf(choice).trains(optionsOf(choice), block)) names.add(name);
  }
  const inOrder = [...shapes.keys()].filter((name) => names.has(name));
  return inOrder.map((name) => ({ name, dtype: storedDtypes[source.dtype(name)], shape: [...shapes.get(name)!] }));
}

const finetuneOf = ({ method }: MethodChoice): Finetune => findMethod(finetunes, method, 'recipe.finetune');
