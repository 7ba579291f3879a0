import { lutraError } from '../errors.js';
import type { Recipe } from './recipe.js';

/** How many bits a weight may take on average, and the widths that layers may have. */
export interface Allocation {
  /** Of everything that is stored for the quantized matrices: codes with padding, scales, offsets, sub-branches. */
  bitsPerWeight: number;
  /** Ascending. */
  widths: number[];
}

/** A layer at one of the widths that it may have. */
export interface WidthOption {
  bits: number;
  /** Bytes that are stored for the layer. */
  bytes: number;
  /** What the width costs the model; sums over layers are compared. */
  loss: number;
}

export interface AllocatedLayer {
  name: string;
  weights: number;
  /** At least one; a layer whose width is given has that one only. */
  options: readonly WidthOption[];
}

/** More ways to spend the same bytes than these are not followed: the best of them by their bound are. */
const mostStates = 2 ** 17;

/**
 * The width of every layer with the least sum of losses whose bytes stay within the budget; of equal sums the fewer bytes. A
 * multiple-choice knapsack: ways to spend the budget are extended layer by layer, and those are dropped that another one
 * dominates or whose Lagrangian bound lies above the best solution known. Exact, but for budgets that leave more than
 * 2^17 undominated ways at once, where it keeps the most promising.
 *
 * @throws `LUTRA_E_OPTION` where no choice of widths stays within the budget, with the least that does; `LUTRA_E_NON_FINITE`
 *   where a loss is NaN or infinite
 */
export function allocateWidths(
  layers: readonly AllocatedLayer[],
  bitsPerWeight: number,
): { widths: Map<string, number>; bytes: number; loss: number } {
  for (const layer of layers) refuseNonFiniteLosses(layer);
  const weights = sum(layers, (layer) => layer.weights);
  const budget = Math.floor((bitsPerWeight * weights) / 8);
  const choices = layers.map(({ options }) => undominated(options));
  const least = sum(choices, ([cheapest]) => cheapest!.bytes);
  if (least > budget)
    throw lutraError('LUTRA_E_OPTION', {
      message: 'no widths of the layers are so few bits',
      where: 'recipe.allocation.bitsPerWeight',
      found: bitsPerWeight,
      expected: `at least ${((8 * least) / weights).toFixed(4)}`,
      hint: 'Scales and offsets count; larger groups have fewer.',
    });
  const price = budgetPrice(choices, budget);
  const chosen = search(choices, budget, price) ?? cheapestAt(choices, price);
  return {
    widths: new Map(layers.map(({ name }, index) => [name, chosen[index]!.bits])),
    bytes: sum(chosen, ({ bytes }) => bytes),
    loss: sum(chosen, ({ loss }) => loss),
  };
}

/** The recipe whose overrides give the layers these widths. */
export function withWidths(recipe: Recipe, widths: ReadonlyMap<string, number>): Recipe {
  return { ...recipe, overrides: [...recipe.overrides, ...[...widths].map(([match, bits]) => ({ match, bits }))] };
}

/** They compare with nothing: the cheapest width would be taken. */
function refuseNonFiniteLosses({ name, options }: AllocatedLayer): void {
  const found = options.find(({ loss }) => !Number.isFinite(loss));
  if (found)
    throw lutraError('LUTRA_E_NON_FINITE', {
      message: `the loss at ${found.bits} bits is a NaN or infinity`,
      where: name,
      found: found.loss,
      expected: 'a finite number',
    });
}

/** By ascending bytes and descending loss: options that cost more and gain nothing are left out. */
function undominated(options: readonly WidthOption[]): WidthOption[] {
  const kept: WidthOption[] = [];
  for (const option of [...options].sort((a, b) => a.bytes - b.bytes || a.loss - b.loss))
    if (!kept.length || option.loss < kept.at(-1)!.loss) kept.push(option);
  return kept;
}

/** The options of least loss + price · bytes; of equals the cheapest. */
const cheapestAt = (choices: readonly WidthOption[][], price: number): WidthOption[] =>
  choices.map((options) => options.reduce((best, next) => (cost(next, price) < cost(best, price) ? next : best)));

const cost = ({ loss, bytes }: WidthOption, price: number): number => loss + price * bytes;

/** The Lagrange multiplier of the budget: the least price of a byte, to working precision, at which the best options fit. */
function budgetPrice(choices: readonly WidthOption[][], budget: number): number {
  const fits = (price: number) => sum(cheapestAt(choices, price), ({ bytes }) => bytes) <= budget;
  if (fits(0)) return 0;
  let [low, high] = [0, steepest(choices)];
  for (let i = 0; i < 200; i++) {
    const middle = (low + high) / 2;
    if (middle <= low || middle >= high) break;
    if (fits(middle)) high = middle;
    else low = middle;
  }
  return high;
}

/** A price at which no byte more than the fewest is worth it. */
function steepest(choices: readonly WidthOption[][]): number {
  let slope = 0;
  for (const [first, ...others] of choices)
    for (const { bytes, loss } of others) slope = Math.max(slope, (first!.loss - loss) / (bytes - first!.bytes));
  return 2 * slope;
}

/** One way to spend bytes on the layers so far. */
interface State {
  bytes: number;
  loss: number;
  option: WidthOption | null;
  before: State | null;
}

/** Null where rounding drops every way: the Lagrangian solution is as good then. */
function search(choices: readonly WidthOption[][], budget: number, price: number): WidthOption[] | null {
  const incumbent = sum(cheapestAt(choices, price), ({ loss }) => loss);
  // What the layers still to come cost at least, in bytes and at the price.
  const [bytesLeft, costLeft] = [new Float64Array(choices.length + 1), new Float64Array(choices.length + 1)];
  for (let i = choices.length - 1; i >= 0; i--) {
    bytesLeft[i] = bytesLeft[i + 1]! + choices[i]![0]!.bytes;
    costLeft[i] = costLeft[i + 1]! + Math.min(...choices[i]!.map((option) => cost(option, price)));
  }
  const limit = incumbent + price * budget;
  const slack = 1e-9 * Math.abs(limit);
  let states: State[] = [{ bytes: 0, loss: 0, option: null, before: null }];
  for (const [index, options] of choices.entries()) {
    const next: State[] = [];
    for (const before of states)
      for (const option of options) {
        const [bytes, loss] = [before.bytes + option.bytes, before.loss + option.loss];
        if (bytes + bytesLeft[index + 1]! > budget) continue;
        if (loss + price * bytes + costLeft[index + 1]! > limit + slack) continue;
        next.push({ bytes, loss, option, before });
      }
    states = best(next, price);
  }
  const [found] = states.sort((a, b) => a.loss - b.loss || a.bytes - b.bytes);
  if (!found) return null;
  const chosen: WidthOption[] = [];
  for (let state: State | null = found; state?.option; state = state.before) chosen.push(state.option);
  return chosen.reverse();
}

/** The states that no other one dominates; the most promising of them where they are too many. */
function best(states: State[], price: number): State[] {
  const kept: State[] = [];
  for (const state of states.sort((a, b) => a.bytes - b.bytes || a.loss - b.loss))
    if (!kept.length || state.loss < kept.at(-1)!.loss) kept.push(state);
  if (kept.length <= mostStates) return kept;
  const promise = ({ bytes, loss }: State) => loss + price * bytes;
  return kept.sort((a, b) => promise(a) - promise(b)).slice(0, mostStates);
}

function sum<T>(items: readonly T[], of: (item: T) => number): number {
  return items.reduce((total, item) => total + of(item), 0);
}
