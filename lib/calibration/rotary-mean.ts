/**
 * The mean of R_tᵀ C R_t over positions t = 0 .. positions - 1, R_t the rotation of rotary embeddings in the half-split
 * layout: what a head's row Hessian is before the rotation, if that after it is C wherever a token stands (BoA, arXiv
 * 2406.13474). Positions meet pairs of frequencies as geometric sums, so that their number does not matter.
 *
 * @param c f64 [d, d], symmetric.
 * @param frequencies angle of each pair per position, d / 2 of them.
 */
export function rotaryMean(c: Float64Array, frequencies: Float64Array, positions: number): Float64Array {
  const half = frequencies.length;
  const d = 2 * half;
  const mean = new Float64Array(d * d);
  for (let a = 0; a < half; a++)
    for (let b = 0; b < half; b++) {
      const [upper, lower] = [a * d + b, (a + half) * d + b];
      const [p, q, r, s] = [c[upper]!, c[upper + half]!, c[lower]!, c[lower + half]!];
      // Of the pairs a and b, a part turns by the difference of their angles, the other by the sum.
      const turned = rotate((p + s) / 2, (r - q) / 2, meanTurn(frequencies[b]! - frequencies[a]!, positions));
      const [cos, sin] = meanTurn(frequencies[a]! + frequencies[b]!, positions);
      const mirrored = rotate((p - s) / 2, (r + q) / 2, [cos, -sin]);
      mean[upper] = turned[0] + mirrored[0];
      mean[upper + half] = mirrored[1] - turned[1];
      mean[lower] = turned[1] + mirrored[1];
      mean[lower + half] = turned[0] - mirrored[0];
    }
  return mean;
}

const rotate = (x: number, y: number, [cos, sin]: readonly [number, number]): [number, number] => [
  x * cos - y * sin,
  x * sin + y * cos,
];

/** The means of cos(angle t) and sin(angle t) over t = 0 .. count - 1: a geometric sum in the complex plane. */
function meanTurn(angle: number, count: number): [number, number] {
  const half = angle / 2;
  const length = Math.sin(half) === 0 ? 1 : Math.sin(count * half) / (count * Math.sin(half));
  return [length * Math.cos((count - 1) * half), length * Math.sin((count - 1) * half)];
}
