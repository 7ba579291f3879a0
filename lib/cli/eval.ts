import { type Command, Option } from 'commander';
import { type Evaluation, evaluate } from '../evaluation/index.js';
import { type LoadOptions, loadModel } from '../inference/index.js';
import type { Mode } from '../ops/index.js';
import {
  type CommonOptions,
  deviceOption,
  type Invocation,
  readText,
  runCommand,
  threadsOption,
  wholeNumber,
  withCommonOptions,
} from './command.js';
import { progressReporter } from './progress.js';
import { counted, table } from './table.js';

interface EvalOptions extends CommonOptions {
  text: string;
  reference?: string;
  convention?: 'documents' | 'windows';
  documentSeparator?: string;
  context?: number;
  maxTokens?: number;
  mode: Mode;
  threads: number;
  device: LoadOptions['device'];
}

export function registerEval(program: Command): void {
  withCommonOptions(program.command('eval').description('perplexity, and divergence from a reference model'))
    .argument('<modelDir>', 'directory of the model')
    .requiredOption('--text <file>', 'text to evaluate on (required)')
    .option('--reference <modelDir>', 'model to measure KL divergence and agreement against')
    .addOption(
      new Option(
        '--convention <name>',
        'how the text is cut (default: documents with a separator, else windows)',
      ).choices(['documents', 'windows']),
    )
    .option('--document-separator <text>', "what stands between documents, in a shell for example $'\\n\\n'")
    .option(
      '--context <n>',
      'tokens a document or window (default: the smaller of model context and 2048)',
      wholeNumber(2),
    )
    .option('--max-tokens <n>', 'stop after the document that passes this many tokens (default: all)', wholeNumber(1))
    .addOption(new Option('--mode <name>', 'accuracy').choices(['exact', 'accurate', 'fast']).default('exact'))
    .addOption(threadsOption())
    .addOption(deviceOption())
    .action((modelDir: string, options: EvalOptions) =>
      runCommand('eval', options, (invocation) => run(modelDir, options, invocation), render),
    );
}

async function run(modelDir: string, options: EvalOptions, { signal }: Invocation): Promise<Evaluation> {
  const { mode, threads, device } = options;
  const text = await readText(options.text);
  using model = await loadModel(modelDir, { mode, threads, device, signal });
  using reference =
    options.reference === undefined ? null : await loadModel(options.reference, { mode, threads, device, signal });
  const progress = progressReporter();
  try {
    return await evaluate(model, {
      text,
      mode,
      reference: reference ?? undefined,
      convention: options.convention,
      separator: options.documentSeparator,
      context: options.context,
      maxTokens: options.maxTokens,
      signal,
      onProgress: progress.report,
    });
  } finally {
    progress.stop();
  }
}

function render(result: Evaluation): string {
  const rows = [
    [
      'perplexity',
      `${result.perplexity.toFixed(4)}${plusMinus(result.perplexityStandardError, (value) => value.toFixed(4))}`,
    ],
    [
      'tokens',
      `${result.tokens} in ${counted(result.documents, result.convention.slice(0, -1))}, context ${result.context}`,
    ],
    ['mode', result.mode],
    ['bits per weight', result.bitsPerWeight?.toFixed(3) ?? 'not quantized'],
    ['bits per parameter', result.bitsPerParameter.toFixed(3)],
    ['SHA-256 of the text', result.textSha256],
  ];
  if (result.kl) {
    const { mean, standardError, p99, p999, max } = result.kl;
    rows.push([
      'KL divergence, nats',
      `${mean.toExponential(3)}${plusMinus(standardError, (value) => value.toExponential(1))}`,
    ]);
    rows.push(['KL p99, p99.9, max', [p99, p999, max].map((value) => value.toExponential(2)).join(', ')]);
  }
  if (result.top1Agreement !== null) rows.push(['top-1 agreement', `${(100 * result.top1Agreement).toFixed(2)} %`]);
  return table(['measure', 'value'], rows);
}

/** A standard error, where there is more than one document to tell it from. */
const plusMinus = (error: number | null, format: (value: number) => string) =>
  error === null ? '' : ` ± ${format(error)}`;
