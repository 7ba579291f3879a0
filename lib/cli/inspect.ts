import type { Command } from 'commander';
import { bytesText, type QuantizedEntry, readCheckpoint } from '../formats/index.js';
import { type Verification, verifyCheckpoint } from '../pipeline/index.js';
import { elements } from '../tensor/index.js';
import { type CommonOptions, exitCodes, runCommand, withCommonOptions } from './command.js';
import { table } from './table.js';

interface InspectOptions extends CommonOptions {
  tensors?: boolean;
  verify?: boolean;
  model?: string;
}

interface Inspection {
  directory: string;
  modelType: string;
  parameters: number;
  bytes: number;
  bitsPerWeight: number | null;
  bitsPerParameter: number;
  quantization: { formatVersion: number; bits: number; groupSize: number; symmetric: boolean; recipe: unknown } | null;
  tensors: { name: string; shape: readonly number[]; stored: string; bytes: number }[];
}

export function registerInspect(program: Command): void {
  withCommonOptions(program.command('inspect').description('what a checkpoint holds'))
    .argument('<modelDir>', 'directory of the model')
    .option('--tensors', 'list every tensor')
    .option('--verify', 'compare every file and tensor with the manifest instead')
    .option('--model <dir>', 'with --verify, the model it was made from: is it still the same?')
    .action((modelDir: string, options: InspectOptions, command: Command) => {
      if (options.verify) return verify(modelDir, options);
      if (options.model !== undefined) command.error('error: --model goes with --verify');
      return runCommand(
        'inspect',
        options,
        () => inspect(modelDir),
        (found) => render(found, options),
      );
    });
}

const verify = (directory: string, options: InspectOptions): Promise<void> =>
  runCommand(
    'inspect',
    options,
    ({ signal }) => verifyCheckpoint(directory, { model: options.model, signal }),
    renderVerification,
    ({ intact }) => (intact ? exitCodes.ok : exitCodes.partly),
  );

async function inspect(directory: string): Promise<Inspection> {
  const checkpoint = await readCheckpoint(directory);
  try {
    const { config, quantization } = checkpoint;
    const tensors = [...checkpoint.tensors.values()];
    return {
      directory,
      modelType: String(config.model_type ?? 'unknown'),
      parameters: tensors.reduce((sum, { shape }) => sum + elements(shape), 0),
      bytes: checkpoint.bytes,
      bitsPerWeight: checkpoint.bitsPerWeight,
      bitsPerParameter: checkpoint.bitsPerParameter,
      quantization: quantization && {
        formatVersion: quantization.formatVersion,
        bits: quantization.bits,
        groupSize: quantization.groupSize,
        symmetric: quantization.symmetric,
        recipe: quantization.recipe,
      },
      tensors: tensors.map(({ name, shape, dtype, quantized, bytes }) => ({
        name,
        shape,
        stored: quantized ? storedAs(quantized) : `${dtype}`,
        bytes,
      })),
    };
  } finally {
    await checkpoint.close();
  }
}

function storedAs({ layout, subBranch }: QuantizedEntry): string {
  const packed = `W${layout.bits}g${layout.groupSize} ${layout.kind}`;
  return subBranch ? `${packed} + rank ${subBranch.rank} ${subBranch.dtype}` : packed;
}

function renderVerification({ directory, files, tensors, inputs, differences }: Verification): string {
  const rows = differences.map(({ what, name, state, expected, found }) => [
    what,
    name,
    state,
    expected?.slice(0, 16) ?? '-',
    (state === 'unreadable' ? found : found?.slice(0, 16)) ?? '-',
  ]);
  const compared = `${files} files, ${tensors} tensors${inputs ? `, ${inputs} files of the model` : ''}`;
  const summary = `${directory}: ${differences.length || 'no'} difference${differences.length === 1 ? '' : 's'} in ${compared}`;
  return rows.length ? `${table(['what', 'name', 'state', 'manifest', 'found'], rows)}\n${summary}` : summary;
}

function render(found: Inspection, options: InspectOptions): string {
  const { quantization } = found;
  const rows = [
    ['directory', found.directory],
    ['model type', found.modelType],
    ['parameters', found.parameters.toLocaleString('en-US')],
    ['tensors', `${found.tensors.length}, ${bytesText(found.bytes)}`],
    ['bits per parameter', found.bitsPerParameter.toFixed(3)],
    ['bits per weight', found.bitsPerWeight?.toFixed(3) ?? 'not quantized'],
  ];
  if (quantization) {
    rows.push(['lutra format', `version ${quantization.formatVersion}`]);
    rows.push(['recipe', JSON.stringify(quantization.recipe)]);
  }
  const summary = table(['what', 'found'], rows);
  if (!options.tensors) return summary;
  const list = found.tensors.map(({ name, shape, stored, bytes }) => [
    name,
    shape.join(' x '),
    stored,
    bytesText(bytes),
  ]);
  return `${summary}\n\n${table(['tensor', 'shape', 'stored', 'size'], list)}`;
}
