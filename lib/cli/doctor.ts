import type { Command } from 'commander';
import { type Diagnosis, doctor } from '../native/index.js';
import { type CommonOptions, runCommand, version, withCommonOptions } from './command.js';
import { table } from './table.js';

export function registerDoctor(program: Command): void {
  withCommonOptions(
    program.command('doctor').description('what lutra found on this machine, and what to do about it'),
  ).action((options: CommonOptions) => runCommand('doctor', options, async () => ({ version, ...doctor() }), render));
}

/** One row for a mode and the weights that it multiplies alike. */
function lutGemmRows(ways: Diagnosis['lutGemm']): string[][] {
  const rows: { mode: string; weights: string[]; text: string }[] = [];
  for (const { mode, kind, bits, by } of ways.filter(({ firstToken }) => firstToken === 1)) {
    const more = ways.filter(
      (way) => way.mode === mode && way.kind === kind && way.bits === bits && way.firstToken > 1,
    );
    const text = [by, ...more.map((way) => `from ${way.firstToken} tokens ${way.by}`)].join('; ');
    const weights = `${bits} ${kind === 'planes' ? 'planes' : 'bits'}`;
    const row = rows.find((other) => other.mode === mode && other.text === text);
    if (row) row.weights.push(weights);
    else rows.push({ mode, weights: [weights], text });
  }
  return rows.map(({ mode, weights, text }) => [`lutGemm ${mode}: ${weights.join(', ')}`, text]);
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
    ...lutGemmRows(found.lutGemm),
    ['CUDA', found.cuda.message],
    ['environment', set.join(' ') || 'nothing set'],
  ];
  const advice = found.advice.length ? found.advice.map((line) => `! ${line}`).join('\n') : 'Nothing is wrong.';
  return `${table(['what', 'found'], rows)}\n\n${advice}`;
}
