/**
 * Quality of the methods on small trained models: every recipe of quality-recipes.ts at 4, 3 and 2 bits, groups of 32 and 64,
 * over three calibration seeds, on stories like those of the calibration and on a text of another kind.
 *
 *     npx tsx bench/quantize/quality.ts <models> <texts> <work> [--only <model>,…] [--grids W3g64,…] [--threads <n>]
 *     npx tsx bench/quantize/methods-table.ts <work>
 *
 * <models> holds one directory a model, <texts> tinystories-calibration.txt, tinystories-evaluation.txt and
 * wikitext2-valid.txt. Each grid's and model's comparison grows in <work>/<grid>/<model>, page included, run by run; a sweep
 * that was interrupted goes on where it was. methods-table.ts makes the table of docs/methods.md and bench/results/quality.json of it.
 */
import { access, mkdir, readdir, readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { type Comparison, compareRecipes, titleOf } from '../../lib/comparison/index.js';
import { writeComparison } from '../../lib/report/index.js';
import { qualityRecipes } from './quality-recipes.js';

const separator = '<|endoftext|>';
const calibration = { samples: 32, sequenceLength: 128, heldOut: 8 };
const context = 256;
/** The most telling first. */
const grids = [32, 64].flatMap((groupSize) =>
  [3, 2, 4].map((bits) => ({ name: `W${bits}g${groupSize}`, bits, groupSize })),
);
const seeds = [0, 1, 2];

const { positionals, values } = parseArgs({
  allowPositionals: true,
  options: { only: { type: 'string' }, grids: { type: 'string' }, threads: { type: 'string', default: '0' } },
});
const [models, texts, work] = positionals;
if (!models || !texts || !work) throw new Error('usage: tsx bench/quantize/quality.ts <models> <texts> <work>');
const only = values.only?.split(',');
const textOf = (name: string) => readFile(join(texts, `${name}.txt`), 'utf8');
const [stories, wikitext] = [await textOf('tinystories-evaluation'), await textOf('wikitext2-valid')];

/** The runs of a sweep that was interrupted; those that failed are run again. */
async function finishedRuns(directory: string): Promise<Comparison['runs']> {
  const path = join(directory, 'compare.json');
  const there = await access(path).then(
    () => true,
    () => false,
  );
  return there ? (JSON.parse(await readFile(path, 'utf8')) as Comparison).runs.filter(({ measured }) => measured) : [];
}

async function compareAll(model: string, { name, bits, groupSize }: (typeof grids)[number]): Promise<void> {
  const out = join(work as string, name, model);
  await mkdir(out, { recursive: true });
  const finished = await finishedRuns(out);
  const scratch = join(out, 'checkpoint.scratch');
  for (const left of [scratch, `${scratch}.partial`]) await rm(left, { recursive: true, force: true });
  await compareRecipes({
    ...{ seeds, bits: [bits], groupSizes: [groupSize], recipes: qualityRecipes, finished },
    model: join(models as string, model),
    calibration: { file: join(texts as string, 'tinystories-calibration.txt'), separator, ...calibration },
    texts: [
      { name: 'tinystories', text: stories, separator, context, maxTokens: 4000 },
      { name: 'wikitext2', text: wikitext, context, maxTokens: 2500 },
    ],
    threads: Number(values.threads),
    scratch,
    onRun: async (comparison) => {
      const last = comparison.runs.at(-1);
      if (!last || finished.includes(last)) return;
      // A run that failed before comes again in front of finished ones, which stay.
      const later = finished.filter((run) => !comparison.runs.includes(run));
      await writeComparison(out, { ...comparison, runs: [...comparison.runs, ...later] });
      const kl = last.measured?.texts[0]?.kl?.mean.toFixed(4) ?? last.error?.code;
      process.stderr.write(`${model} ${comparison.runs.length}/${comparison.planned} ${titleOf(last)}: ${kl}\n`);
    },
  });
}

const directories = (await readdir(models, { withFileTypes: true })).filter((entry) => entry.isDirectory());
const names = directories.map(({ name }) => name).filter((name) => !only || only.includes(name));
const asked = values.grids?.split(',') ?? grids.map(({ name }) => name);
for (const grid of asked.map((name) => grids.find((grid) => grid.name === name))) {
  if (!grid) throw new Error(`--grids takes ${grids.map(({ name }) => name).join(', ')}`);
  for (const name of names) await compareAll(name, grid);
}
