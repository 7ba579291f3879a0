import { expect, test } from 'vitest';
import { Random } from '../../../lib/calibration/index.js';
import { type AllocatedLayer, allocateWidths } from '../../../lib/quantization/index.js';

/** Layers whose losses fall by about four a bit, as rounding errors do, with bytes of a few sizes. */
function layersOf(count: number, seed: number, widths = [2, 3, 4]): AllocatedLayer[] {
  const random = new Random(seed);
  return Array.from({ length: count }, (_, index) => {
    const weights = 1024 * (1 + random.below(3));
    const sensitivity = 10 ** (-3 * random.next());
    const options = widths.map((bits) => ({
      bits,
      bytes: (weights * bits) / 8 + 64 * (1 + random.below(2)),
      loss: sensitivity * 4 ** -bits * (0.5 + random.next()),
    }));
    return { name: `layer.${index}`, weights, options };
  });
}

const bytesOf = (layers: readonly AllocatedLayer[], widths: ReadonlyMap<string, number>, key: 'bytes' | 'loss') =>
  layers.reduce((sum, { name, options }) => sum + options.find(({ bits }) => bits === widths.get(name))![key], 0);

/** The least loss within the budget of all choices there are. */
function bruteForce(layers: readonly AllocatedLayer[], budget: number): number {
  let least = Number.POSITIVE_INFINITY;
  const choose = (index: number, bytes: number, loss: number) => {
    if (bytes > budget) return;
    const layer = layers[index];
    if (!layer) least = Math.min(least, loss);
    else for (const option of layer.options) choose(index + 1, bytes + option.bytes, loss + option.loss);
  };
  choose(0, 0, 0);
  return least;
}

test('the choice is the best of all within the budget, and never above it', () => {
  for (let seed = 0; seed < 60; seed++) {
    const layers = layersOf(1 + (seed % 8), seed, seed % 2 ? [2, 3, 4] : [2, 4]);
    const weights = layers.reduce((sum, layer) => sum + layer.weights, 0);
    for (const bits of [2.6, 2.9, 3.2, 3.7, 4.1, 5]) {
      const budget = Math.floor((bits * weights) / 8);
      const least = bruteForce(layers, budget);
      if (least === Number.POSITIVE_INFINITY) {
        expect(() => allocateWidths(layers, bits)).toThrow(
          expect.objectContaining({ code: 'LUTRA_E_OPTION', where: 'recipe.allocation.bitsPerWeight' }),
        );
        continue;
      }
      const { widths, bytes, loss } = allocateWidths(layers, bits);
      expect(bytes).toBe(bytesOf(layers, widths, 'bytes'));
      expect(loss).toBeCloseTo(bytesOf(layers, widths, 'loss'), 12);
      expect(bytes).toBeLessThanOrEqual(budget);
      expect(loss).toBeCloseTo(least, 12);
    }
  }
});

test('a larger budget never costs more, in a model of many layers too, and the same question has the same answer', () => {
  const layers = layersOf(224, 5);
  let before = Number.POSITIVE_INFINITY;
  for (let bits = 2.6; bits < 4.6; bits += 0.07) {
    const { widths, bytes, loss } = allocateWidths(layers, bits);
    const weights = layers.reduce((sum, layer) => sum + layer.weights, 0);
    expect((8 * bytes) / weights).toBeLessThanOrEqual(bits);
    expect(loss).toBeLessThanOrEqual(before);
    expect([...allocateWidths(layers, bits).widths]).toEqual([...widths]);
    before = loss;
  }
});

test('the budget goes where it saves most, and layers with one width keep it', () => {
  const options = (loss: number) => [2, 4].map((bits) => ({ bits, bytes: 128 * bits, loss: loss / bits }));
  const layers = [1, 8, 2].map((loss, index) => ({ name: `${index}`, weights: 1024, options: options(loss) }));
  expect([...allocateWidths(layers, 2.7).widths.values()]).toEqual([2, 4, 2]);
  expect([...allocateWidths(layers, 3.4).widths.values()]).toEqual([2, 4, 4]);
  const pinned = layers.map((layer) => (layer.name === '0' ? { ...layer, options: layer.options.slice(1) } : layer));
  expect([...allocateWidths(pinned, 2.7).widths.values()]).toEqual([4, 2, 2]);
});

test('a wider layer that gains nothing is not taken', () => {
  const flat = [2, 3, 4].map((bits) => ({ bits, bytes: 128 * bits, loss: 1 }));
  expect([...allocateWidths([{ name: 'a', weights: 1024, options: flat }], 9).widths.values()]).toEqual([2]);
});

test.each([Number.NaN, Number.POSITIVE_INFINITY])('a loss of %s is refused', (loss) => {
  const layers = layersOf(3, 1);
  const options = layers[1]!.options.map((option) => (option.bits === 3 ? { ...option, loss } : option));
  expect(() => allocateWidths([layers[0]!, { ...layers[1]!, options }, layers[2]!], 3)).toThrow(
    expect.objectContaining({ code: 'LUTRA_E_NON_FINITE', where: 'layer.1', found: loss }),
  );
});
