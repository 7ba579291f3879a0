/**
 * Symmetric and upper triangular matrices as packed triangles: the rows of the upper triangle one behind the other, from the
 * diagonal on.
 */

/** Elements of a packed triangle of n rows. */
export const triangleElements = (n: number): number => (n * (n + 1)) / 2;

/** Rows of a triangle of this shape, packed or in a square [n, n]; -1 where it is neither. */
export function triangleRows({ shape }: { shape: readonly number[] }): number {
  const [first = 0, second] = shape;
  if (shape.length === 2) return first === second ? first : -1;
  const n = Math.round((Math.sqrt(8 * first + 1) - 1) / 2);
  return shape.length === 1 && triangleElements(n) === first ? n : -1;
}

/** Row and column of an element of a packed triangle of n rows. */
export function trianglePlace(index: number, n: number): [row: number, column: number] {
  let [row, begin] = [0, 0];
  while (begin + n - row <= index) {
    begin += n - row;
    row++;
  }
  return [row, row + index - begin];
}
