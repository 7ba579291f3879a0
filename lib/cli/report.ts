import { open, stat } from 'node:fs/promises';
import { resolve } from 'node:path';
import type { Command } from 'commander';
import { lutraError } from '../errors.js';
import { onFile, replaceFile, requireRegularFile } from '../formats/index.js';
import { jobPage, pageBeginning, readJobReport } from '../report/index.js';
import { type CommonOptions, checkWritable, type Invocation, runCommand, withCommonOptions } from './command.js';

interface ReportOptions extends CommonOptions {
  out?: string;
  model?: string;
  overwrite?: boolean;
}

interface Reported {
  page: string;
  layers: number;
  warnings: number;
}

export function registerReport(program: Command): void {
  withCommonOptions(program.command('report').description('a finished job as one page'))
    .argument('<dir>', 'directory that lutra quantize has written')
    .option('--out <file>', 'page to write (default: <dir>.html)')
    .option('--model <dir>', 'the model it was made from: weights before and after')
    .option('--overwrite', 'replace an existing page')
    .action((directory: string, options: ReportOptions) =>
      runCommand('report', options, (invocation) => report(directory, options, invocation), render),
    );
}

async function report(directory: string, options: ReportOptions, { signal }: Invocation): Promise<Reported> {
  const path = options.out ?? `${resolve(directory)}.html`;
  if (!options.overwrite && (await stat(path).catch(() => null)))
    throw lutraError('LUTRA_E_EXISTS', {
      message: 'the page exists already',
      where: path,
      hint: 'Choose another file with --out, or allow to replace it: --overwrite.',
    });
  await requireRegularFile(path);
  await requirePage(path);
  await checkWritable(path);
  const found = await readJobReport(directory, { model: options.model, signal });
  await replaceFile(path, jobPage(found));
  const { layers } = found.manifest;
  return { page: path, layers: layers.length, warnings: layers.reduce((sum, layer) => sum + layer.warnings.length, 0) };
}

/** @throws `LUTRA_E_EXISTS` where something else than a page lies at `path` */
async function requirePage(path: string): Promise<void> {
  const found = await stat(path).catch(() => null);
  if (!found?.size) return;
  const beginning = Buffer.alloc(pageBeginning.length);
  const file = await onFile(path, () => open(path, 'r'));
  try {
    await onFile(path, () => file.read(beginning, 0, beginning.length, 0));
  } finally {
    await file.close();
  }
  if (beginning.toString('latin1') !== pageBeginning)
    throw lutraError('LUTRA_E_EXISTS', {
      message: 'what lies there is no page: it will not be replaced',
      where: path,
      hint: 'Choose another file with --out.',
    });
}

const render = ({ page, layers, warnings }: Reported): string => `${page}: ${layers} layers, ${warnings} warnings`;
