import type { ScalingGroup } from '../../models/index.js';
import { Tensor } from '../../tensor/index.js';
import type { BlockTransformInput, Call } from '../method.js';
import { asFloat32 } from '../passes.js';
import { numbersOf, scaleMatrix, stored } from './passes.js';

type Block = Pick<BlockTransformInput<unknown>, 'weights' | 'dtype'>;

/**
 * The scales nearest to `wanted` with which the block computes the same: a norm's weight over its scale is rounded to the type
 * in which it is stored, and the layers behind are scaled by what that leaves. Channels whose weight would become zero or
 * infinite keep their scale of 1.
 */
export async function foldableScales(
  { producer }: ScalingGroup,
  wanted: Float64Array,
  { weights, dtype }: Block,
  call: Call,
): Promise<Float64Array> {
  if (!('norm' in producer)) return wanted;
  const where = { ...call, where: producer.norm };
  const before = await numbersOf(weights.get(producer.norm) as Tensor, where);
  using rounded = await stored(
    before.map((weight, channel) => weight / wanted[channel]!),
    dtype(producer.norm),
    where,
  );
  const after = await numbersOf(rounded, where);
  return before.map((weight, channel) => {
    const scale = weight / after[channel]!;
    return Number.isFinite(scale) && scale > 0 ? scale : 1;
  });
}

/** Multiplies the columns of the group's layers with the scales and divides what makes their inputs by them. */
export async function fold(group: ScalingGroup, scales: Float64Array, block: Block, call: Call): Promise<void> {
  const { dtype } = block;
  const { producer } = group;
  for (const { name } of group.linears)
    await replace(block, name, (w, y) => scaleMatrix(w, { columns: scales }, y, { ...call, where: name }));
  if ('norm' in producer) return await divide(block, producer.norm, scales, dtype(producer.norm), call);
  const { name, bias } = producer.linear;
  const rows = scales.map((scale) => 1 / scale);
  await replace(block, name, (w, y) => scaleMatrix(w, { rows }, y, { ...call, where: name }));
  if (bias) await divide(block, bias, scales, dtype(bias), call);
}

async function replace({ weights }: Block, name: string, make: (w: Tensor, y: Tensor) => Promise<void>): Promise<void> {
  const w = weights.get(name) as Tensor;
  const y = Tensor.zeros('f32', w.shape);
  try {
    await make(w, y);
  } catch (error) {
    y.dispose();
    throw error;
  }
  weights.set(name, y);
  w.dispose();
}

/** A norm or a bias over the scales, rounded to the type in which it is stored, in the type that it has. */
async function divide(
  { weights }: Block,
  name: string,
  scales: Float64Array,
  dtype: Tensor['dtype'],
  call: Call,
): Promise<void> {
  const where = { ...call, where: name };
  const vector = weights.get(name) as Tensor;
  const numbers = await numbersOf(vector, where);
  const rounded = await stored(
    numbers.map((value, channel) => value / scales[channel]!),
    dtype,
    where,
  );
  weights.set(name, vector.dtype === dtype ? rounded : await widened(rounded, where));
  vector.dispose();
}

async function widened(rounded: Tensor, call: Call): Promise<Tensor> {
  try {
    const wide = await asFloat32(rounded, call);
    if (wide !== rounded) rounded.dispose();
    return wide;
  } catch (error) {
    rounded.dispose();
    throw error;
  }
}
