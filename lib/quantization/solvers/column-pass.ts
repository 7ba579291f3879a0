import { Tensor } from '../../tensor/index.js';
import type { Call, Grid, Values } from '../method.js';
import { disposeOnFailure, gatherColumns, gptqPass, groupColumns, levelsOf } from '../passes.js';
import { copyRows } from '../row-passes.js';
import type { HessianFactor } from './gptq-factor.js';

/**
 * Codes u8 [m, k], columns as in w, by GPTQ's pass in the factor's order with the values' levels as the quantizer.
 *
 * @param wanted f32 [m, k], where given, receives what every code was rounded from.
 */
export async function columnPass(
  w: Tensor,
  values: Values,
  { order, factor }: Pick<HessianFactor, 'order'> & { factor: Tensor },
  grid: Grid,
  call: Call,
  wanted?: Tensor,
): Promise<Tensor> {
  const columns = groupColumns(grid, order.length);
  const groupOf = order.map((column) => Math.floor(column / columns));
  using levels = await levelsOf(values, grid, call);
  if (order.every((column, position) => column === position))
    return await gptqPass({ w, factor, groupOf, levels }, call, wanted);
  const back = new Int32Array(order.length);
  order.forEach((column, position) => {
    back[column] = position;
  });
  using ordered = await gatherColumns(w, order, call);
  using orderedWanted = wanted && Tensor.zeros('f32', w.shape);
  using codes = await gptqPass({ w: ordered, factor, groupOf, levels }, call, orderedWanted);
  const found = await gatherColumns(codes, back, call);
  if (!wanted || !orderedWanted) return found;
  await disposeOnFailure([found], async () => {
    using columnsBack = await gatherColumns(orderedWanted, back, call);
    await copyRows(wanted, columnsBack, call);
  });
  return found;
}
