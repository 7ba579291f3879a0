import type { Command } from 'commander';
import { type Diagnosis, doctor } from '../native/index.js';
import { type CommonOptions, runCommand, version, withCommonOptions } from './command.js';
import { table } from './table.js';

export function registerDoctor(program: Command): void {
  withCommonOptions(
    program.command('doctor').description('what lutra found on this machine, and what to do about it'),
  ).action((options: CommonOptions) => runCommand('doctor', options, async () => ({ version, ...doctor() }), render));
}

function render(found: Diagnosis & { version: string }): string {
  const set = Object.entries(found.environment).map(([name, value]) => `${name}=${value}`);
  const rows = [
    ['lutra', found.version],
    ['Node', found.node],
    ['platform', found.platform],
    ['CPU features', found.features.join(', ') || 'none that lutra uses'],
    ['instruction set', found.isa],
    ['threads', String(found.threads)],
    ...Object.entries(found.kernels).map(([family, name]) => [`kernels: ${family}`, name]),
    ['CUDA', found.cuda.message],
    ['environment', set.join(' ') || 'nothing set'],
  ];
  const advice = found.advice.length ? found.advice.map((line) => `! ${line}`).join('\n') : 'Nothing is wrong.';
  return `${table(['what', 'found'], rows)}\n\n${advice}`;
}
