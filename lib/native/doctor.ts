import { addon, platformName } from './loader.js';

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

/** Variables that change what lutra does; docs/cli.md explains them. */
const variables = ['LUTRA_ISA', 'LUTRA_THREADS', 'LUTRA_PREBUILD'];

/** What lutra found on this machine. */
export interface Diagnosis {
  node: string;
  /** Platform, processor and C library. */
  platform: string;
  /** Features of the processor that lutra's kernels can use and the operating system allows. */
  features: string[];
  isa: string;
  threads: number;
  /** The version that runs, by kernel family. */
  kernels: Record<string, string>;
  cuda: { built: boolean; message: string };
  /** lutra's environment variables that are set. */
  environment: Record<string, string>;
  /** What is wrong and what to do about it; empty when nothing is. */
  advice: string[];
}

/**
 * Looks at the machine, the addon and the environment.
 *
 * @throws `LUTRA_E_NO_BINARY` where no addon fits, which says what to do
 */
export function doctor(): Diagnosis {
  const { isa, features, threads, isaOverrideValid, kernels } = addon().describe();
  const advice: string[] = [];
  if (!isaOverrideValid)
    advice.push(`LUTRA_ISA=${process.env.LUTRA_ISA} is no instruction set: use scalar, avx2 or avx512, or unset it`);
  const wanted = process.env.LUTRA_THREADS;
  if (wanted && !(/^\d+$/.test(wanted) && Number(wanted) >= 1 && Number(wanted) <= 1024))
    advice.push(`LUTRA_THREADS=${wanted} is no whole number from 1 to 1024: set one, or unset it`);
  if (isa === 'scalar') advice.push('no vector kernels are used: products run on the scalar path, many times slower');
  const set = variables.flatMap((name) => (process.env[name] ? [[name, process.env[name]] as const] : []));
  return {
    node: process.version,
    platform: platformName(),
    features: featureNames.filter((_, bit) => (features >> bit) & 1),
    isa,
    threads,
    kernels,
    cuda: { built: false, message: 'this version has no CUDA backend' },
    environment: Object.fromEntries(set),
    advice,
  };
}

/** Bytes that native tensors hold in this process, outside the JavaScript heap. */
export function nativeMemory(): number {
  return addon().nativeMemory();
}
