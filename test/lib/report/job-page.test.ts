import { readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { beforeAll, expect, test } from 'vitest';
import { readCheckpoint } from '../../../lib/formats/index.js';
import { type Manifest, quantizeModel } from '../../../lib/pipeline/index.js';
import { type JobReport, jobPage, readJobReport } from '../../../lib/report/index.js';
import { codeOf } from '../formats/safetensors-bytes.js';
import { scratchDirectory, words, writeRandomModel } from '../pipeline/random-model.js';
import { checkWellFormed } from './well-formed.js';

const scratch = scratchDirectory();
const model = join(scratch, 'model');
const made = join(scratch, 'made');
const rotated = join(scratch, 'rotated');
const layers = 14;
const kinds = ['q_proj', 'k_proj', 'v_proj', 'o_proj', 'gate_proj', 'up_proj', 'down_proj'];

beforeAll(async () => {
  await writeRandomModel(model, {
    edit: (name, values) => name.endsWith('1.input_layernorm.weight') && values.fill(0, 3, 4),
  });
  const calibration = { texts: [words(3000)], samples: 4, sequenceLength: 32, heldOut: 2 };
  await quantizeModel({ model, out: made, recipe: { method: 'gptq', bits: 3, groupSize: 32 }, calibration });
  const recipe = { transforms: [{ method: 'hadamard' }], solver: { method: 'rtn' }, grid: { bits: 2, groupSize: 32 } };
  await quantizeModel({ model, out: rotated, recipe: recipe as never });
});

function checked(report: JobReport): string {
  const page = jobPage(report);
  checkWellFormed(page.replace('<!DOCTYPE html>', ''));
  expect(page).not.toMatch(/http|<script|<link|<img|@import|url\(|NaN|Infinity|undefined|\[object/i);
  return page;
}

/** Weights that the histograms of a report have counted. */
const counted = ({ weights }: JobReport) =>
  weights.map(({ histograms }) => histograms.after.counts.reduce((sum, count) => sum + count, 0));

test('the page tells every layer, its warnings, its damping, the weights and the sizes', async () => {
  const report = await readJobReport(made, { model });
  expect(report.weights.map(({ kind }) => kind)).toEqual(kinds);
  const [width, inner] = [64, 96];
  const sizes = [width * width, 32 * width, 32 * width, width * width, inner * width, inner * width, width * inner];
  expect(counted(report)).toEqual(sizes.map((size) => 2 * size));
  for (const { histograms } of report.weights) expect(histograms.relativeError).toBeGreaterThan(0.001);

  const page = checked(report);
  const manifest = JSON.parse(readFileSync(join(made, 'manifest.json'), 'utf8')) as Manifest;
  expect(manifest.layers).toHaveLength(layers);
  for (const { name } of manifest.layers) expect(page).toContain(`<th scope="row">${name.replace('.weight', '')}</th>`);
  const dead = manifest.layers.filter(({ warnings }) => warnings.some(({ kind }) => kind === 'deadColumns')).length;
  expect(dead).toBeGreaterThan(0);
  expect(page).toContain(`<th scope="row">deadColumns</th><td>${dead}</td><td>${dead}</td>`);
  expect(page).toContain('<b>model.layers.1.self_attn.q_proj.weight</b> deadColumns: 1 input columns were zero');
  expect(page).toContain('Damping of each layer: 0.0100 throughout.');
  for (const { what } of report.sizes) expect(page).toContain(`<th scope="row">${what}</th>`);
  for (const hash of Object.values(manifest.outputs.files)) expect(page).toContain(hash);
  // Two errors, calibrated and held out, for a wide and a narrow screen, with a point a layer.
  const points = [...page.matchAll(/<title>(model\.layers\.\d+\.[a-z_.]+\.weight): [\d.e-]+<\/title>/g)];
  expect(points).toHaveLength(2 * 2 * layers);
  expect(new Set(points.map(([, name]) => name)).size).toBe(layers);
});

test('all bytes of the tensors are told once', async () => {
  const report = await readJobReport(made);
  await using checkpoint = await readCheckpoint(made);
  expect(report.sizes.reduce((sum, { bytes }) => sum + bytes, 0)).toBe(checkpoint.bytes);
});

test('without the model, the run log or a text it tells what there is', async () => {
  const copy = readFileSync(join(rotated, 'run-log.json'));
  rmSync(join(rotated, 'run-log.json'));
  const report = await readJobReport(rotated);
  writeFileSync(join(rotated, 'run-log.json'), copy);
  expect(report).toMatchObject({ compared: false, runLog: { seconds: null, peakRssBytes: null } });
  const page = checked(report);
  expect(page).toContain('hadamard');
  expect(page).toContain('None: every layer went the plain way.');
  expect(page).not.toMatch(/error \/ root mean square|Damping of each layer/);
  // What a transform changed is no error of quantization.
  expect(checked(await readJobReport(rotated, { model }))).not.toContain('error / root mean square');
});

test('texts of a manifest are escaped', async () => {
  const report = await readJobReport(made);
  const [first] = report.manifest.layers;
  first!.warnings.push({ kind: 'scaleDtype', message: '<script>alert("&")</script>' });
  expect(checked({ ...report, name: '<b>' })).toContain('&lt;script&gt;alert(&quot;&amp;&quot;)');
});

test('what is no finished job is refused', async () => {
  expect(await codeOf(() => readJobReport(model))).toBe('LUTRA_E_MANIFEST');
});
