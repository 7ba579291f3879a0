import { type Command, Option } from 'commander';
import { type FinishReason, type LoadOptions, loadModel } from '../inference/index.js';
import type { Mode } from '../ops/index.js';
import {
  type CommonOptions,
  deviceOption,
  type Invocation,
  print,
  realNumber,
  runCommand,
  threadsOption,
  wholeNumber,
  withCommonOptions,
} from './command.js';

interface GenerateOptions extends CommonOptions {
  prompt: string;
  maxTokens: number;
  temperature?: number;
  topK?: number;
  topP?: number;
  minP?: number;
  repetitionPenalty?: number;
  seed?: number;
  mode: Mode;
  batchInvariant?: boolean;
  threads: number;
  device: LoadOptions['device'];
}

interface Generation {
  text: string;
  tokens: number;
  finishReason: FinishReason;
}

export function registerGenerate(program: Command): void {
  withCommonOptions(program.command('generate').description('continue a prompt'))
    .argument('<modelDir>', 'directory of the model')
    .requiredOption('--prompt <text>', 'text to continue (required)')
    .option('--max-tokens <n>', 'tokens at most', wholeNumber(1), 128)
    .option('--temperature <t>', 'above 0 samples; 0 takes the likeliest token (default: 0)', realNumber(0))
    .option('--top-k <n>', 'sample from the k likeliest tokens (default: all)', wholeNumber(1))
    .option('--top-p <p>', 'sample from the likeliest tokens of this mass (default: 1)', realNumber(0))
    .option('--min-p <p>', 'drop tokens less likely than this share of the likeliest (default: 0)', realNumber(0))
    .option('--repetition-penalty <r>', 'above 1 discourages tokens already seen (default: 1)', realNumber(0))
    .option('--seed <n>', 'seed of the sampler (default: random)', wholeNumber(0))
    .addOption(new Option('--mode <name>', 'accuracy').choices(['exact', 'accurate', 'fast']).default('accurate'))
    .option('--batch-invariant', 'the same bits for a token alone or computed with others')
    .addOption(threadsOption())
    .addOption(deviceOption())
    .action((modelDir: string, options: GenerateOptions) =>
      runCommand(
        'generate',
        options,
        (invocation) => run(modelDir, options, invocation),
        () => '',
      ),
    );
}

async function run(modelDir: string, options: GenerateOptions, { signal, json }: Invocation): Promise<Generation> {
  const { mode, batchInvariant, threads, device, prompt, json: _json, verbose: _verbose, ...sampling } = options;
  const model = await loadModel(modelDir, { mode, batchInvariant, threads, device, signal });
  try {
    const result: Generation = { text: '', tokens: 0, finishReason: 'length' };
    const pieces = model.generate(prompt, { ...sampling, signal });
    if (!json) await print(prompt);
    for await (const piece of pieces) {
      result.text += piece.text;
      result.tokens++;
      if (piece.finishReason) result.finishReason = piece.finishReason;
      if (!json) await print(piece.text);
    }
    if (!json) await print('\n');
    return result;
  } finally {
    model.dispose();
  }
}
