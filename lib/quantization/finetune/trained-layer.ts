import { Tensor } from '../../tensor/index.js';
import type { Call, SolvedLayer, Values } from '../method.js';
import { gridPlanes, valuesOf } from '../passes.js';
import { valueGradients, weightsOf } from '../passes-finetune.js';
import { copy, Parameter } from './parameter.js';

/**
 * One linear layer whose values are trained: the numbers that every group stores, but for the zeros of a symmetric grid.
 * Beside codes and values it holds 8 bytes a weight, 12 where there is a sub-branch, and 22 a value.
 */
export class TrainedLayer {
  readonly parameters: readonly Parameter[];
  /** f32 [outFeatures, inFeatures]: what `materialise` made of the values. */
  readonly weight: Tensor;
  /** The derivatives of the loss by the weights. */
  readonly gradient: Tensor;

  /** @param branch f32 [outFeatures, inFeatures]: the sub-branch's share of the weights. */
  constructor(
    private readonly layer: SolvedLayer,
    private readonly branch: Tensor | null,
  ) {
    const { codes, values, grid, scaleDtype } = layer;
    const trained = grid.symmetric ? valuesOf(values).slice(0, 1) : valuesOf(values);
    this.parameters = trained.map((numbers) => new Parameter(numbers, scaleDtype));
    this.weight = Tensor.zeros('f32', codes.shape);
    this.gradient = Tensor.zeros('f32', codes.shape);
  }

  /** Makes weights of the values as they are being trained, or as they would be stored. */
  async materialise(form: 'trained' | 'rounded', call: Call): Promise<void> {
    const { codes, grid } = this.layer;
    if (this.branch) await copy([[this.branch, this.weight]], call);
    await weightsOf(codes, this.#values(form), grid, { w: this.weight, add: this.branch !== null }, call);
  }

  /** Turns the derivatives by the weights into those by the values. */
  async backward(call: Call): Promise<void> {
    const { codes, grid, values } = this.layer;
    const { storage } = values;
    const [first, second] = this.parameters.map(({ gradient }) => gradient);
    const target = { first: first!, second: second ?? valuesOf(values)[1]! };
    await valueGradients(this.gradient, codes, { storage, grid }, target, call);
  }

  #values(form: 'trained' | 'rounded'): Values {
    const { values } = this.layer;
    const [first, second = valuesOf(values)[1]] = this.parameters.map((parameter) => parameter[form]) as [
      Tensor,
      Tensor,
    ];
    if (values.storage === 'zeroCode') return { ...values, scales: first, zeros: second! };
    if (values.storage === 'realOffset') return { ...values, scales: first, offsets: second! };
    return { ...values, alphas: first, offsets: second! };
  }

  dispose(): void {
    for (const parameter of this.parameters) parameter.dispose();
    for (const tensor of [this.weight, this.gradient, this.branch]) tensor?.dispose();
  }
}

/** A zero code is whole and cannot be trained: in its place, in its memory, the real offset -scale · zero. */
export async function withRealOffsets(layer: SolvedLayer, call: Call): Promise<void> {
  const { values, grid } = layer;
  if (values.storage !== 'zeroCode' || grid.symmetric) return;
  const { scales, zeros } = values;
  using alphas = Tensor.zeros('f32', [...scales.shape, grid.bits]);
  using offsets = Tensor.zeros('f32', zeros.shape);
  await gridPlanes(scales, zeros, { alphas, offsets }, call);
  await copy([[offsets, zeros]], call);
  layer.values = { storage: 'realOffset', scales, offsets: zeros };
}
