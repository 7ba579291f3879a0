import type { Command } from 'commander';
import { addon, platformName } from '../native/index.js';
import { type CommonOptions, runCommand, version, withCommonOptions } from './command.js';
import { table } from './table.js';

/** Bit i of `describe().features`, in the order of native/platform/cpu_features.h. */
const featureNames = [
  'AVX2',
  'FMA',
  'F16C',
  'AVX-512 F/BW/DQ/VL',
  'AVX-512 VNNI',
  'AVX-512 VBMI',
  'NEON',
  'dot product',
];

/** Variables that change what lutra does, as docs/cli.md explains them. */
const variables = ['LUTRA_ISA', 'LUTRA_THREADS', 'LUTRA_PREBUILD'];

interface Diagnosis {
  version: string;
  node: string;
  platform: string;
  features: string[];
  isa: string;
  threads: number;
  kernels: Record<string, string>;
  cuda: { built: boolean; message: string };
  environment: Record<string, string>;
  advice: string[];
}

export function registerDoctor(program: Command): void {
  withCommonOptions(
    program.command('doctor').description('what lutra found on this machine, and what to do about it'),
  ).action((options: CommonOptions) => runCommand('doctor', options, async () => diagnose(), render));
}

function diagnose(): Diagnosis {
  const { isa, features, threads, isaOverrideValid, kernels } = addon().describe();
  const advice: string[] = [];
  if (!isaOverrideValid)
    advice.push(
      `LUTRA_ISA=${process.env.LUTRA_ISA} is no instruction set: use scalar, avx2, avx512 or neon, or unset it`,
    );
  if (isa === 'scalar') advice.push('no vector kernels fit: products run on the scalar path, 10 times slower or more');
  return {
    version,
    node: process.version,
    platform: platformName(),
    features: featureNames.filter((_, bit) => (features >> bit) & 1),
    isa,
    threads,
    kernels,
    cuda: { built: false, message: 'this version has no CUDA backend' },
    environment: Object.fromEntries(
      variables.flatMap((name) => (process.env[name] ? [[name, process.env[name]]] : [])),
    ),
    advice,
  };
}

function render(found: Diagnosis): string {
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
