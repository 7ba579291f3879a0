import type { Tensor } from '../../tensor/index.js';
import type { Call, Grid, Values } from '../method.js';
import { gatherColumns, gptqPass, groupColumns, levelsOf } from '../passes.js';
import type { HessianFactor } from './gptq-factor.js';

/** Codes u8 [m, k], columns as in w, by GPTQ's pass in the factor's order with the values' levels as the quantizer. */
export async function columnPass(
  w: Tensor,
  values: Values,
  { order, factor }: Pick<HessianFactor, 'order'> & { factor: Tensor },
  grid: Grid,
  call: Call,
): Promise<Tensor> {
  const columns = groupColumns(grid, order.length);
  const groupOf = order.map((column) => Math.floor(column / columns));
  using levels = await levelsOf(values, grid, call);
  if (order.every((column, position) => column === position))
    return await gptqPass({ w, factor, groupOf, levels }, call);
  using ordered = await gatherColumns(w, order, call);
  using codes = await gptqPass({ w: ordered, factor, groupOf, levels }, call);
  const back = new Int32Array(order.length);
  order.forEach((column, position) => {
    back[column] = position;
  });
  return await gatherColumns(codes, back, call);
}
