/**
 * Makes the tables of docs/methods.md, and bench/results/quality.json, out of what quality.ts has measured so far; a model and
 * grid that <work> does not hold stays as it is:
 *
 *     npx tsx bench/quantize/methods-table.ts <work>
 */
import { readdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { machineCard } from '../../lib/benchmark/index.js';
import { type Comparison, type ComparisonRow, type RowMeasures, summarize } from '../../lib/comparison/index.js';
import { klText, perplexityText } from '../../lib/report/index.js';

const [work] = process.argv.slice(2);
if (!work) throw new Error('usage: tsx bench/quantize/methods-table.ts <work>');
const page = new URL('../../docs/methods.md', import.meta.url);
const results = new URL('../results/quality.json', import.meta.url);
const [begin, end] = ['<!-- tables: begin -->', '<!-- tables: end -->'];

/** Held-out error over calibration error, the median of the layers: how much a method believes its windows. */
function overfitting({ layers }: RowMeasures): number | null {
  const ratios = layers.flatMap(({ error, heldOutError }) => (heldOutError ? [heldOutError.mean / error.mean] : []));
  return ratios.sort((a, b) => a - b)[ratios.length >> 1] ?? null;
}

function rowOf({ name, measured, failed }: ComparisonRow): string[] {
  if (!measured) return [name, '-', failed[0]?.error?.code ?? '-', '-', '-', '-'];
  const [first, second] = measured.texts;
  return [
    measured.seeds < 3 && measured.first.layers.some(({ tokens }) => tokens !== null)
      ? `${name} (${measured.seeds} of 3 seeds)`
      : name,
    measured.bitsPerWeight.toFixed(2),
    first ? perplexityText(first.perplexity) : '-',
    first ? klText(first.kl) : '-',
    second ? klText(second.kl) : '-',
    overfitting(measured)?.toFixed(2) ?? '-',
  ];
}

const heads = ['recipe', 'bits per weight', 'perplexity', 'KL', 'KL on wikitext2', 'held out / calibration'];

function tableOf(grid: string, { model, texts, runs }: Comparison): string {
  const line = (cells: readonly string[]) => `| ${cells.join(' | ')} |`;
  const original = perplexityText({ mean: texts[0]?.original.perplexity ?? Number.NaN, standardError: null });
  const rows = summarize({ runs });
  return [
    `### ${model}, ${grid}`,
    '',
    `Perplexity of the original: ${original}.`,
    '',
    line(heads),
    `| --- |${' ---: |'.repeat(heads.length - 1)}`,
    ...rows.map((row) => line(rowOf(row))),
  ].join('\n');
}

const short = (x: number | null | undefined): number | null => (x == null ? null : Number(x.toPrecision(4)));

/** What of a comparison is kept: every run's numbers to four digits; of its layers, the calibration and the held-out error. */
const recordOf = (grid: string, { model, texts, runs, calibration }: Comparison) => ({
  ...{ model, grid, calibration, texts },
  layers: runs.find(({ measured }) => measured)?.measured?.layers.map(({ name }) => name),
  runs: runs.map(({ name, seed, measured, error }) => {
    if (!measured) return { name, seed, error };
    const found = measured.texts.map(({ perplexity, perplexityStandardError, kl }) =>
      [perplexity, perplexityStandardError, kl?.mean, kl?.standardError].map(short),
    );
    const layers = measured.layers.map(({ calibrationError, heldOutError }) =>
      [calibrationError, heldOutError].map(short),
    );
    return { name, seed, bitsPerWeight: measured.bitsPerWeight, perplexityAndKl: found, layers };
  }),
});

/** What a table and a record are of. */
const keyOf = (model: string, grid: string) => `${model}, ${grid}`;
const grids = ['W4g32', 'W4g64', 'W3g32', 'W3g64', 'W2g32', 'W2g64'];

const document = await readFile(page, 'utf8');
const [before, rest] = document.split(begin);
const [inside, after] = rest?.split(end) ?? [];
if (before === undefined || inside === undefined || after === undefined)
  throw new Error(`docs/methods.md lacks ${begin} or ${end}`);

// What this folder does not hold stays as it was measured.
const tables = new Map<string, string>();
for (const table of inside.split(/^(?=### )/m).filter((text) => text.startsWith('### ')))
  tables.set(table.slice('### '.length, table.indexOf('\n')), table.trim());
const records = new Map<string, unknown>();
const earlier = JSON.parse(await readFile(results, 'utf8')) as { comparisons: { model: string; grid: string }[] };
for (const record of earlier.comparisons) records.set(keyOf(record.model, record.grid), record);

const models = new Set(earlier.comparisons.map(({ model }) => model));
for (const grid of grids)
  for (const model of await readdir(join(work, grid)).catch(() => [])) {
    const text = await readFile(join(work, grid, model, 'compare.json'), 'utf8').catch(() => null);
    if (text === null) continue;
    const comparison = JSON.parse(text) as Comparison;
    models.add(model);
    tables.set(keyOf(model, grid), tableOf(grid, comparison));
    records.set(keyOf(model, grid), recordOf(grid, comparison));
  }
const keys = grids.flatMap((grid) => [...models].sort().map((model) => keyOf(model, grid)));
const ordered = <T>(all: ReadonlyMap<string, T>) => keys.flatMap((key) => all.get(key) ?? []);
await writeFile(page, `${before}${begin}\n\n${ordered(tables).join('\n\n')}\n\n${end}${after}`);
const lines = ordered(records)
  .map((record) => JSON.stringify(record))
  .join(',\n ');
await writeFile(results, `{"machine": ${JSON.stringify(machineCard())},\n "comparisons": [\n ${lines}\n]}\n`);
