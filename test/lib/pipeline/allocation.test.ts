import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { beforeAll, expect, test } from 'vitest';
import { evaluate } from '../../../lib/evaluation/index.js';
import { readCheckpoint } from '../../../lib/formats/index.js';
import { loadModel } from '../../../lib/inference/index.js';
import { type Manifest, quantizeModel } from '../../../lib/pipeline/index.js';
import { memoryAtRest } from '../../memory-at-rest.js';
import { describeWithShared, sharedModel, sharedText } from '../../shared-material.js';
import { filesOf, scratchDirectory, words, writeRandomModel } from './random-model.js';

const scratch = scratchDirectory();
const model = join(scratch, 'model');
const calibration = { texts: [words(3000)], samples: 4, sequenceLength: 32, seed: 4 };

/** The first block's feed-forward adds next to nothing to the residual stream. */
beforeAll(() =>
  writeRandomModel(model, {
    edit: (name, values) => {
      if (name.endsWith('layers.0.mlp.down_proj.weight')) for (let i = 0; i < values.length; i++) values[i]! /= 64;
    },
  }),
);

const recipeOf = (bitsPerWeight: number, more: object = {}) =>
  ({ solver: { method: 'rtn' }, grid: { bits: 3, groupSize: 32 }, allocation: { bitsPerWeight }, ...more }) as never;

test('layers get widths within the budget: as stored, in the result and in the manifest', async () => {
  for (const bitsPerWeight of [3, 3.5, 4.2]) {
    const out = join(scratch, `budget-${bitsPerWeight}`);
    const job = { model, calibration, recipe: recipeOf(bitsPerWeight) };
    const result = await quantizeModel({ ...job, out });
    expect(result.bitsPerWeight).toBeLessThanOrEqual(bitsPerWeight);
    // A step of one layer by a bit is at most a ninth of all weights.
    expect(result.bitsPerWeight).toBeGreaterThan(bitsPerWeight - 0.15);
    expect(new Set(result.layers.map(({ bits }) => bits)).size).toBeGreaterThan(1);
    await using written = await readCheckpoint(out);
    for (const { name, bits } of result.layers) expect(written.tensor(name).quantized?.layout.bits).toBe(bits);
    const manifest = JSON.parse(readFileSync(join(out, 'manifest.json'), 'utf8')) as Manifest;
    expect(manifest.layers).toEqual(result.layers);
    expect(manifest.recipe.allocation).toEqual({ bitsPerWeight, widths: [2, 3, 4] });
    expect(manifest.recipe.overrides).toEqual([]);
    await quantizeModel({ ...job, out: `${out}-again`, threads: 1 });
    expect(filesOf(`${out}-again`)).toEqual(filesOf(out));
  }
});

test('layers whose errors the output does not feel have the fewest bits', async () => {
  const { layers } = await quantizeModel({ model, out: join(scratch, 'fewest'), calibration, recipe: recipeOf(3.3) });
  const [silent, heard] = [true, false].map((wanted) =>
    layers.filter(({ name }) => name.includes('layers.0.mlp') === wanted).map(({ bits }) => bits),
  ) as [number[], number[]];
  expect(silent).toEqual([2, 2, 2]);
  expect(heard).toContain(3);
});

describeWithShared('on a trained model', () => {
  test('the same bits diverge less than at one width everywhere', async () => {
    const trained = sharedModel('babyllama-tok361');
    const text = readFileSync(sharedText('tinystories-evaluation.txt'), 'utf8');
    const separator = '<|endoftext|>';
    const file = sharedText('tinystories-calibration.txt');
    using original = await loadModel(trained);
    const divergence = async (name: string, allocation: object | null) => {
      const out = join(scratch, name);
      const recipe = { method: 'rtn', bits: 3, groupSize: 32, allocation };
      const windows = { file, separator, samples: 16, sequenceLength: 128 };
      const { bitsPerWeight } = await quantizeModel({
        model: trained,
        out,
        recipe: recipe as never,
        calibration: windows,
      });
      using quantized = await loadModel(out);
      const { kl } = await evaluate(quantized, { reference: original, text, separator, maxTokens: 1000 });
      return { bitsPerWeight, mean: kl?.mean };
    };
    const uniform = await divergence('uniform', null);
    const allocated = await divergence('allocated', { bitsPerWeight: uniform.bitsPerWeight });
    expect(allocated.bitsPerWeight).toBeLessThanOrEqual(uniform.bitsPerWeight);
    expect(allocated.mean).toBeLessThan(0.9 * uniform.mean!);
  });
});

test('derivatives that overflow are refused, and widths not chosen by them', async () => {
  const overflowing = join(scratch, 'overflowing');
  await writeRandomModel(overflowing, {
    edit: (name, values) => {
      if (name === 'model.norm.weight') values.fill(1e37);
    },
  });
  const before = await memoryAtRest();
  await expect(
    quantizeModel({ model: overflowing, out: join(scratch, 'overflow'), calibration, recipe: recipeOf(3.5) }),
  ).rejects.toMatchObject({
    code: 'LUTRA_E_NON_FINITE',
    where: expect.stringMatching(/^model\.layers\.1\.\w+\.\w+\.weight$/),
    hint: expect.stringContaining('allocation'),
  });
  expect(await memoryAtRest()).toBe(before);
});

test('overrides pin widths, listed widths are the only others, and transforms and Hessians go with them', async () => {
  const overrides = [
    { match: '*.down_proj', bits: 2 },
    { match: '*.q_proj', groupSize: 16 },
  ];
  const { layers, bitsPerWeight } = await quantizeModel({
    model,
    out: join(scratch, 'pinned'),
    calibration,
    recipe: recipeOf(3.7, {
      solver: { method: 'gptq' },
      transforms: [{ method: 'hadamard' }, { method: 'awq', tokens: 32, steps: 3 }],
      allocation: { bitsPerWeight: 3.7, widths: [4, 2] },
      overrides,
    }),
  });
  expect(bitsPerWeight).toBeLessThanOrEqual(3.7);
  for (const { name, bits, groupSize } of layers) {
    expect([2, 4]).toContain(bits);
    if (name.includes('down_proj')) expect(bits).toBe(2);
    expect(groupSize).toBe(name.includes('q_proj') ? 16 : 32);
  }
  expect(layers.filter(({ bits }) => bits === 4).length).toBeGreaterThan(4);
});

test('a budget that nothing fits, one without text, and nonsense are refused; an abort leaves nothing', async () => {
  const out = join(scratch, 'refused');
  const refusal = (job: object) =>
    quantizeModel({ model, out, calibration, recipe: recipeOf(3), ...job }).catch((error: unknown) => error);
  const phases: string[] = [];
  const onPhase = ({ phase }: { phase: string }) => phases.push(phase);
  expect(await refusal({ recipe: recipeOf(2.3), onProgress: onPhase })).toMatchObject({
    code: 'LUTRA_E_OPTION',
    where: 'recipe.allocation.bitsPerWeight',
    expected: 'at least 2.7500',
  });
  expect(phases).toEqual([]);
  expect(await refusal({ calibration: undefined })).toMatchObject({ code: 'LUTRA_E_OPTION', where: 'calibration' });
  for (const allocation of [
    {},
    { bitsPerWeight: '3' },
    { bitsPerWeight: 3, widths: [] },
    { bitsPerWeight: 3, widths: [5] },
  ])
    expect(await refusal({ recipe: recipeOf(3, { allocation }) })).toMatchObject({ code: 'LUTRA_E_OPTION' });
  const before = await memoryAtRest();
  for (const deferred of [false, true]) {
    const controller = new AbortController();
    const onProgress = ({ phase }: { phase: string }) => {
      if (phase !== 'allocate') return;
      if (deferred) setImmediate(() => controller.abort('enough'));
      else controller.abort('enough');
    };
    expect(await refusal({ signal: controller.signal, onProgress })).toBe('enough');
  }
  expect(await memoryAtRest()).toBe(before);
  await expect(readCheckpoint(out)).rejects.toMatchObject({ code: 'LUTRA_E_NOT_FOUND' });
});
