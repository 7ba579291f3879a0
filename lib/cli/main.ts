#!/usr/bin/env node
import { Command } from 'commander';
import { registerBench } from './bench.js';
import { fail, version } from './command.js';
import { registerCompare } from './compare.js';
import { registerDoctor } from './doctor.js';
import { registerEval } from './eval.js';
import { registerGenerate } from './generate.js';
import { registerInspect } from './inspect.js';
import { registerQuantize } from './quantize.js';
import { registerReport } from './report.js';

const program = new Command('lutra')
  .description('Low-bit weight quantization and look-up-table inference for language models')
  .version(version)
  .showHelpAfterError('(lutra <command> --help lists the options)')
  .exitOverride();

for (const register of [
  registerQuantize,
  registerEval,
  registerCompare,
  registerGenerate,
  registerInspect,
  registerReport,
  registerBench,
  registerDoctor,
])
  register(program);
// Subcommands do not inherit exitOverride: without it commander would end the process with its own code.
for (const command of program.commands) command.exitOverride();

// Without listeners Node ends the process when a reader goes away; `print` sees what happens to the result.
process.stdout.on('error', () => {});
process.stderr.on('error', () => {});

program.parseAsync().catch(async (error: unknown) => {
  const name = program.commands.find((command) => command.name() === process.argv[2])?.name() ?? '';
  await fail(name, { json: process.argv.includes('--json'), verbose: process.argv.includes('--verbose') }, error);
});
