import { join } from 'node:path';
import type { Command } from 'commander';
import { LutraError } from '../errors.js';
import { bytesText, readSettings } from '../formats/index.js';
import {
  type Progress,
  planQuantization,
  type QuantizationJob,
  type QuantizationPlan,
  type QuantizationResult,
  quantizeModel,
  recordedJob,
} from '../pipeline/index.js';
import { type RecipeInput, solvers } from '../quantization/index.js';
import {
  type CommonOptions,
  type Invocation,
  memorySize,
  realNumber,
  runCommand,
  threadsOption,
  wholeNumber,
  withCommonOptions,
} from './command.js';
import { renderPlan } from './plan.js';
import { progressReporter } from './progress.js';
import { counted, table } from './table.js';

interface QuantizeOptions extends CommonOptions {
  out: string;
  method?: string;
  bits?: number;
  groupSize?: number;
  symmetric?: boolean;
  recipe?: string;
  fromManifest?: string;
  calibration?: string;
  documentSeparator?: string;
  samples?: number;
  heldOut?: number;
  sequenceLength?: number;
  seed?: number;
  maxBadWindows?: number;
  threads: number;
  overwrite?: boolean;
  resume: boolean;
  strict?: boolean;
  shardSize?: number;
  maxMemory?: number;
  dryRun?: boolean;
}

export function registerQuantize(program: Command): void {
  withCommonOptions(program.command('quantize').description('quantize a Hugging Face checkpoint'))
    .argument('<modelDir>', 'directory of the model')
    .requiredOption('--out <dir>', 'directory to write (required)')
    .option('--method <name>', `${solvers.map(({ name }) => name).join(', ')} (required without --recipe)`)
    .option('--bits <n>', '2, 3 or 4 (required without --recipe)', wholeNumber(1))
    .option('--group-size <n>', '16, a multiple of 32, or -1 for the row (default: 128)', wholeNumber(-1))
    .option('--symmetric', 'centre every grid on zero')
    .option('--recipe <file>', 'a recipe in JSON or YAML instead of --method, --bits and --group-size')
    .option('--from-manifest <dir>', 'repeat the job that made this checkpoint, bit for bit, instead')
    .option('--calibration <file>', 'text for the methods that look at activations (required with them)')
    .option('--document-separator <text>', 'what stands between documents of the calibration text')
    .option('--samples <n>', 'calibration windows (default: 128)', wholeNumber(1))
    .option('--held-out <n>', 'windows besides that only measure (default: 0)', wholeNumber(0))
    .option('--sequence-length <n>', 'tokens a window (default: the smaller of model context and 2048)', wholeNumber(1))
    .option('--seed <n>', 'seed of the windows (default: 0)', wholeNumber(0))
    .option('--max-bad-windows <n>', 'windows to leave out where activations overflow (default: 0)', wholeNumber(0))
    .addOption(threadsOption())
    .option('--shard-size <GB>', 'largest file of the output (default: 5)', realNumber(0.001))
    .option('--max-memory <size>', 'memory that the process may have, such as 4GB or 2GiB', memorySize)
    .option('--overwrite', 'replace an existing output')
    .option('--no-resume', 'start afresh where a run of this job has left unfinished work')
    .option('--strict', 'fail on the first warning of a layer instead of recording it')
    .option('--dry-run', 'check everything that needs no weights, print the plan and write nothing')
    .action((modelDir: string, options: QuantizeOptions, command: Command) => {
      checkRecipeOptions(options, command);
      const work =
        <T>(what: (model: string, options: QuantizeOptions, invocation: Invocation) => Promise<T>) =>
        (invocation: Invocation) =>
          inTermsOf(modelDir, options, () => what(modelDir, options, invocation));
      if (options.dryRun) return runCommand('quantize', options, work(plan), renderPlan);
      return runCommand('quantize', options, work(run), render);
    });
}

/** Options that a manifest answers, and that are not to be said twice. */
const recorded = [
  'method',
  'bits',
  'groupSize',
  'symmetric',
  'recipe',
  'documentSeparator',
  'samples',
  'heldOut',
  'sequenceLength',
  'seed',
  'maxBadWindows',
  'shardSize',
] as const;

/** A recipe comes from the options, a file or a manifest: a usage error where it comes from none or from two of them. */
function checkRecipeOptions(options: QuantizeOptions, command: Command): void {
  const { method, bits, groupSize, symmetric, recipe } = options;
  if (options.fromManifest !== undefined) {
    const said = command.options.filter((option) =>
      recorded.some((name) => name === option.attributeName() && options[name] !== undefined),
    );
    if (said.length)
      command.error(
        `error: ${said.map(({ long }) => long).join(', ')} cannot go with --from-manifest: the manifest says that itself`,
      );
    return;
  }
  if (recipe === undefined && (method === undefined || bits === undefined))
    command.error('error: --method and --bits are needed, or --recipe <file>');
  if (recipe !== undefined && [method, bits, groupSize, symmetric].some((option) => option !== undefined))
    command.error('error: a recipe file says method, bits, group size and symmetry itself');
}

/** What the job calls its parts, by the option that says them. */
const optionOf: Readonly<Record<string, string>> = {
  'recipe.method': '--method',
  'recipe.bits': '--bits',
  'recipe.groupSize': '--group-size',
  'recipe.symmetric': '--symmetric',
  calibration: '--calibration',
  'calibration.separator': '--document-separator',
  'calibration.samples': '--samples',
  'calibration.heldOut': '--held-out',
  'calibration.sequenceLength': '--sequence-length',
  'calibration.seed': '--seed',
  'calibration.maxBadWindows': '--max-bad-windows',
  'quantizeModel.model': '<modelDir>',
  'quantizeModel.out': '--out',
};

/** Names the file that a recipe is in, and the options that say the rest. */
async function inTermsOf<T>(model: string, options: QuantizeOptions, work: () => Promise<T>): Promise<T> {
  const { recipe, fromManifest, calibration, out } = options;
  const file = recipe ?? (fromManifest && join(fromManifest, 'manifest.json'));
  const given = [model, out, recipe, fromManifest, calibration];
  try {
    return await work();
  } catch (error) {
    if (!(error instanceof LutraError) || !error.where) throw error;
    // A file may be called recipe.json.
    const { where } = error;
    if (given.some((path) => path !== undefined && isAt(path, where))) throw error;
    if (file && /^recipe(?:\.|$)/.test(where)) throw error.at(`${file}: ${where}`);
    const option = optionOf[where];
    throw option ? error.at(option) : error;
  }
}

/** Whether a place is this file, in it, or below this directory. */
const isAt = (path: string, where: string): boolean =>
  where === path || (where.startsWith(path) && ':/\\'.includes(where.charAt(path.length)));

async function run(model: string, options: QuantizeOptions, invocation: Invocation): Promise<QuantizationResult> {
  const job = await jobOf(model, options, invocation);
  const progress = progressReporter();
  const resumeHint = `go on with: ${commandLine()}`;
  let kept = '';
  try {
    const onProgress = (event: Progress) => {
      if (event.phase === 'journal' || event.phase === 'resume') kept = keptOf(event);
      progress.report(event);
    };
    return await quantizeModel({ ...job, resumeHint, onProgress });
  } catch (error) {
    if (kept && error === job.signal?.reason && error instanceof Error) error.message += `. ${kept}: ${resumeHint}`;
    throw error;
  } finally {
    progress.stop();
  }
}

const keptOf = ({ block, blocks }: { block: number; blocks: number }) => `${block} of ${blocks} blocks are kept`;

/** The command that goes on with this one's work. */
function commandLine(): string {
  const quoted = (word: string) => (/^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`);
  const words = process.argv.slice(2).filter((word) => word !== '--no-resume');
  return [...programWords(), ...words].map(quoted).join(' ');
}

/** How this program was called: by npx, by the name that it is installed under, or as a file. */
function programWords(): string[] {
  if (process.env.npm_command === 'exec') return ['npx', 'lutra'];
  const [, program = ''] = process.argv;
  return program.endsWith('.js') ? ['node', program] : ['lutra'];
}

async function plan(model: string, options: QuantizeOptions, invocation: Invocation): Promise<QuantizationPlan> {
  return await planQuantization(await jobOf(model, options, invocation), { measureTime: true });
}

async function jobOf(model: string, options: QuantizeOptions, { signal }: Invocation): Promise<QuantizationJob> {
  const { fromManifest, calibration: file, documentSeparator: separator, shardSize } = options;
  const { out, overwrite, resume, strict, threads, maxMemory: maxMemoryBytes } = options;
  const run = { model, out, overwrite, resume, strict, threads, maxMemoryBytes, signal };
  if (fromManifest !== undefined)
    return recordedJob(fromManifest, { ...run, calibration: file === undefined ? undefined : { file } });
  const { samples, heldOut, sequenceLength, seed, maxBadWindows } = options;
  const numbers = { samples, heldOut, sequenceLength, seed, maxBadWindows };
  return {
    ...run,
    recipe: await readRecipe(options),
    calibration: file === undefined ? undefined : { file, separator, ...numbers },
    shardBytes: shardSize === undefined ? undefined : Math.round(shardSize * 1e9),
  };
}

/** The job checks what it is. */
async function readRecipe(options: QuantizeOptions): Promise<RecipeInput> {
  const { method, bits, groupSize = 128, symmetric = false, recipe: file } = options;
  return (file === undefined ? { method, bits, groupSize, symmetric } : await readSettings(file)) as RecipeInput;
}

function render(result: QuantizationResult): string {
  const rows = result.layers.map((layer) => [
    layer.name.replace(/\.weight$/, ''),
    layer.relativeError.toExponential(2),
    layer.heldOutError?.toExponential(2) ?? '-',
    layer.damping === null ? '-' : String(layer.damping),
    layer.deadColumns,
    layer.tokens ?? '-',
  ]);
  const warnings = result.layers.flatMap((layer) =>
    layer.warnings.map((warning) => `! ${layer.name}: ${warning.message}`),
  );
  const left = result.badWindows.map(
    ({ block, window }) => `! window ${window}: left out from block ${block} on, where activations are not finite`,
  );
  const kinds = Object.entries(result.warnings).map(([kind, count]) => `${count} ${kind}`);
  const tuned = result.finetune.map(
    ({ block, method, lossBefore, lossAfter }) =>
      `${method}, block ${block}: squared error ${lossBefore.toExponential(2)}, then ${lossAfter.toExponential(2)}`,
  );
  const summary =
    `${result.out}: ${bytesText(result.bytes)}, ${result.bitsPerWeight.toFixed(3)} bits per weight, ` +
    `${result.bitsPerParameter.toFixed(3)} bits per parameter, ${result.seconds.toFixed(1)} s, ` +
    `peak memory ${bytesText(result.peakRssBytes)}`;
  const head = ['layer', 'relative error', 'held out', 'damping', 'dead', 'tokens'];
  const resumed =
    result.resumedBlocks > 0 ? [`${counted(result.resumedBlocks, 'block')} taken over from an earlier run`] : [];
  const counts = `warnings: ${kinds.join(', ') || 'none'}`;
  const notes = result.notes.map((note) => `note: ${note}`);
  return [table(head, rows), ...warnings, ...left, ...tuned, ...resumed, ...notes, counts, summary].join('\n');
}
