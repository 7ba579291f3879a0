/** The methods that speed.ts times. One more is a line here. */
export interface SpeedCase {
  name: string;
  /** What the recipe says besides the grid. */
  recipe: { method: string; [option: string]: unknown };
  /**
   * Operations of its matrix products and factorisations for a matrix [m, k] in `groups` groups a row, a multiplication and an
   * addition counted as two; what grows with m k alone is left out.
   */
  operations(m: number, k: number, groups: number): number;
}

const factor = (k: number): number => k ** 3 / 3;
/** A pass over the columns, and a quadratic form of every row: half of a full product each. */
const pass = (m: number, k: number): number => m * k ** 2;
/** Errors are measured three times: of the weights, the result and round to nearest. */
const measured = (m: number, k: number): number => 3 * m * k ** 2;

const iterations = 4;
/** Sixteen ranges are tried; the start is measured twice. */
const decoupleqForms = 18;

export const speedCases: readonly SpeedCase[] = [
  { name: 'rtn', recipe: { method: 'rtn' }, operations: () => 0 },
  { name: 'hqq', recipe: { method: 'hqq' }, operations: () => 0 },
  { name: 'gptq', recipe: { method: 'gptq' }, operations: (m, k) => factor(k) + pass(m, k) + measured(m, k) },
  { name: 'leanquant', recipe: { method: 'leanquant' }, operations: (m, k) => factor(k) + pass(m, k) + measured(m, k) },
  {
    name: 'decoupleq',
    recipe: { method: 'decoupleq', iterations },
    operations: (m, k, groups) => {
      const fit = m * k ** 2 + (m * (2 * groups) ** 3) / 3;
      const weights = 2 * m * k ** 2;
      return factor(k) + iterations * (pass(m, k) + fit) + weights + decoupleqForms * m * k ** 2 + measured(m, k);
    },
  },
];
