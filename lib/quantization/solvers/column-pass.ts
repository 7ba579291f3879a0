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
  const back = order.every((column, position) => column === position) ? null : inverse(order);
  const [rows = 0] = w.shape;
  if (rows <= rowsTogether) return await passRows({ w, values, wanted }, { order, back, factor, groupOf, grid }, call);
  const codes = Tensor.zeros('u8', w.shape);
  return await disposeOnFailure([codes], async () => {
    for (let begin = 0; begin < rows; begin += rowsTogether) {
      const end = Math.min(rows, begin + rowsTogether);
      const views: Tensor[] = [];
      const view = (x: Tensor) => {
        const part = x.rows(begin, end);
        views.push(part);
        return part;
      };
      try {
        const part = { w: view(w), values: rowsOf(values, view), wanted: wanted && view(wanted) };
        using found = await passRows(part, { order, back, factor, groupOf, grid }, call);
        await copyRows(view(codes), found, call);
      } finally {
        for (const part of views) part.dispose();
      }
    }
    return codes;
  });
}

/**
 * Of a matrix these rows go through the pass together: only their reordered weights and their errors are in memory. Products
 * take as many at a time, so that larger parts would not be faster.
 */
const rowsTogether = 768;

interface Columns {
  order: Int32Array;
  /** The place of every column in the order; null where they are in order. */
  back: Int32Array | null;
  factor: Tensor;
  groupOf: Int32Array;
  grid: Grid;
}

async function passRows(
  { w, values, wanted }: { w: Tensor; values: Values; wanted: Tensor | undefined },
  { order, back, factor, groupOf, grid }: Columns,
  call: Call,
): Promise<Tensor> {
  using levels = await levelsOf(values, grid, call);
  if (!back) return await gptqPass({ w, factor, groupOf, levels }, call, wanted);
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

/** The place of every number in an order. */
export function inverse(order: Int32Array): Int32Array {
  const back = new Int32Array(order.length);
  order.forEach((column, position) => {
    back[column] = position;
  });
  return back;
}

/** The same values of some rows. */
function rowsOf(values: Values, view: (x: Tensor) => Tensor): Values {
  if (values.storage === 'planes')
    return { storage: 'planes', alphas: view(values.alphas), offsets: view(values.offsets) };
  if (values.storage === 'realOffset')
    return { storage: 'realOffset', scales: view(values.scales), offsets: view(values.offsets) };
  return { storage: 'zeroCode', scales: view(values.scales), zeros: view(values.zeros) };
}
