import { rm } from 'node:fs/promises';
import { basename, extname, join } from 'node:path';
import { type Command, Option } from 'commander';
import {
  type Comparison,
  type ComparisonRow,
  compareRecipes,
  type NamedRecipe,
  type RowMeasures,
  summarize,
  type TextToCompare,
  titleOf,
} from '../comparison/index.js';
import { readSettings } from '../formats/index.js';
import type { Mode } from '../ops/index.js';
import { createComparison, klText, percentText, perplexityText, writeComparison } from '../report/index.js';
import {
  type CommonOptions,
  exitCodes,
  type Invocation,
  listOf,
  readText,
  runCommand,
  threadsOption,
  wholeNumber,
  withCommonOptions,
} from './command.js';
import { progressReporter } from './progress.js';
import { table } from './table.js';

interface CompareOptions extends CommonOptions {
  recipes: string[];
  text: string;
  heldOutText?: string;
  calibration?: string;
  documentSeparator?: string;
  heldOutSeparator?: string;
  bits: number[];
  groupSize: number[];
  seeds: number[];
  samples?: number;
  heldOut?: number;
  sequenceLength?: number;
  context?: number;
  maxTokens?: number;
  mode: Mode;
  threads: number;
  out: string;
  overwrite?: boolean;
}

export function registerCompare(program: Command): void {
  const list = (flag: string, what: string, least: number, preset: string) =>
    new Option(`${flag} <list>`, what).argParser(listOf(wholeNumber(least))).default(listOf(Number)(preset), preset);
  withCommonOptions(program.command('compare').description('quantize by many recipes, and measure each'))
    .argument('<modelDir>', 'directory of the model')
    .addOption(
      new Option('--recipes <list>', 'methods and recipe files (.json, .yaml), comma-separated (required)')
        .argParser(listOf(String))
        .makeOptionMandatory(),
    )
    .requiredOption('--text <file>', 'text to evaluate on (required)')
    .requiredOption('--out <dir>', 'directory for compare.json and compare.html (required)')
    .option('--held-out-text <file>', 'a second text to evaluate on, of another kind')
    .option('--calibration <file>', 'text for the recipes that need one')
    .option('--document-separator <text>', 'what stands between documents of --text and --calibration')
    .option('--held-out-separator <text>', 'what stands between documents of --held-out-text')
    .addOption(list('--bits', 'widths for recipes that say none', 1, '2,3,4'))
    .addOption(list('--group-size', 'group sizes for recipes that say none', -1, '128'))
    .addOption(list('--seeds', 'seeds of the calibration windows', 0, '0'))
    .option('--samples <n>', 'calibration windows (default: 128)', wholeNumber(1))
    .option('--held-out <n>', 'windows besides that only measure (default: 0)', wholeNumber(0))
    .option('--sequence-length <n>', 'tokens a window (default: the smaller of model context and 2048)', wholeNumber(1))
    .option('--context <n>', 'tokens a document or window (default: as above)', wholeNumber(2))
    .option('--max-tokens <n>', 'stop after the document that passes this many tokens (default: all)', wholeNumber(1))
    .addOption(new Option('--mode <name>', 'accuracy').choices(['exact', 'accurate', 'fast']).default('exact'))
    .addOption(threadsOption())
    .option('--overwrite', 'replace the results of an earlier comparison')
    .action((modelDir: string, options: CompareOptions) =>
      runCommand('compare', options, (invocation) => run(modelDir, options, invocation), render, exitCodeOf),
    );
}

async function run(model: string, options: CompareOptions, { signal }: Invocation): Promise<Comparison> {
  const { calibration: file, documentSeparator: separator, samples, heldOut, sequenceLength, out } = options;
  const recipes: NamedRecipe[] = [];
  for (const text of options.recipes) recipes.push(await recipeOf(text));
  const texts = await textsOf(options);
  await createComparison(out, { overwrite: options.overwrite });
  const progress = progressReporter();
  const scratch = join(out, 'checkpoint.scratch');
  try {
    return await compareRecipes({
      ...{ model, recipes, texts, scratch, signal },
      bits: options.bits,
      groupSizes: options.groupSize,
      seeds: options.seeds,
      calibration: file === undefined ? undefined : { file, separator, samples, heldOut, sequenceLength },
      mode: options.mode,
      threads: options.threads,
      onProgress: progress.report,
      onRun: (comparison) => writeComparison(out, comparison),
    });
  } finally {
    progress.stop();
    await rm(scratch, { recursive: true, force: true });
  }
}

/** A file by its ending, else the name of a method. */
async function recipeOf(text: string): Promise<NamedRecipe> {
  const ending = extname(text);
  if (!['.json', '.yaml', '.yml'].includes(ending.toLowerCase())) return { name: text, recipe: { method: text } };
  return { name: basename(text, ending), recipe: await readSettings(text) };
}

async function textsOf(options: CompareOptions): Promise<TextToCompare[]> {
  const { text, documentSeparator, heldOutText, heldOutSeparator, context, maxTokens } = options;
  const limits = { context, maxTokens };
  const first = { name: basename(text), text: await readText(text), separator: documentSeparator, ...limits };
  if (heldOutText === undefined) return [first];
  const second = { name: basename(heldOutText), text: await readText(heldOutText), separator: heldOutSeparator };
  return [first, { ...second, ...limits }];
}

const exitCodeOf = ({ runs }: Comparison): number =>
  runs.every(({ measured }) => measured) ? exitCodes.ok : exitCodes.partly;

function render(comparison: Comparison): string {
  const { texts } = comparison;
  const several = texts.length > 1;
  const heads = texts.flatMap(({ name }) =>
    ['perplexity', 'KL, nats', 'top-1'].map((head) => (several ? `${head} ${name}` : head)),
  );
  const original = texts.flatMap(({ original: { perplexity, perplexityStandardError } }) => [
    perplexityText({ mean: perplexity, standardError: perplexityStandardError }),
    '-',
    '-',
  ]);
  const rows = summarize(comparison);
  const cells = rows.flatMap(({ label, measured }) => (measured ? [[label, ...cellsOf(measured)]] : []));
  const failures = rows.flatMap(({ failed }: ComparisonRow) =>
    failed.map((one) => `! ${titleOf(one)}: ${one.error?.code} ${one.error?.message}`),
  );
  return [
    table(['recipe', 'bits/weight', ...heads, 'seconds'], [['original', '-', ...original, '-'], ...cells]),
    ...failures,
  ].join('\n');
}

const cellsOf = ({ bitsPerWeight, texts, seconds }: RowMeasures): string[] => [
  bitsPerWeight.toFixed(3),
  ...texts.flatMap(({ perplexity, kl, top1Agreement }) => [
    perplexityText(perplexity),
    klText(kl),
    percentText(top1Agreement),
  ]),
  seconds.toFixed(1),
];
