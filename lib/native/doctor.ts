import type { LutGemmWay } from './addon.js';
import { type CudaReport, probeCuda } from './cuda.js';
import { wrongVariables } from './environment.js';
import { addon, addonAsIs, platformName } from './loader.js';

/** Bit i of `describe().features`, in the order of native/platform/cpu_features.h. */
const featureNames = [
  'AVX2',
  'FMA',
  'F16C',
  'AVX-VNNI',
  'AVX-512 F/BW/DQ/VL',
  'AVX-512 VNNI',
  'AVX-512 VBMI',
  'AVX-512 BF16',
  'AMX-TILE',
  'AMX-INT8',
  'AMX-BF16',
  'NEON',
  'dot product',
  'i8mm',
];

/** Variables that change what lutra does; docs/cli.md explains them. */
const variables = ['LUTRA_ISA', 'LUTRA_THREADS', 'LUTRA_PREBUILD', 'LUTRA_CUDA_PATH'];

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
  /** How lutGemm multiplies, by accuracy mode, kind and width of the weights, and tokens computed together. */
  lutGemm: LutGemmWay[];
  cuda: CudaReport;
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
  const native = addonAsIs();
  const { isa, isas, features, threads, kernels, lutGemm } = native.describe();
  const advice: string[] = [];
  for (const { name, found, expected } of wrongVariables(native))
    advice.push(`${name}=${found} cannot be: set it to ${expected}, or unset it`);
  if (isa === 'scalar') advice.push('no vector kernels are used: products run on the scalar path, many times slower');
  const refused = tilesRefused(isa, isas, features);
  if (refused)
    advice.push(
      'the processor has AMX, but the operating system gives this process no tiles: products run without them',
    );
  const cuda = probeCuda();
  if (cuda.built && !['ready', 'noDriver', 'noDevice'].includes(cuda.state))
    advice.push(`CUDA cannot be used: ${cuda.message}`);
  const set = variables.flatMap((name) => (process.env[name] ? [[name, process.env[name]] as const] : []));
  return {
    node: process.version,
    platform: platformName(),
    features: featureNames.filter((name, bit) => (features >> bit) & 1 && !(refused && name.startsWith('AMX'))),
    isa,
    threads,
    kernels,
    lutGemm,
    cuda,
    environment: Object.fromEntries(set),
    advice,
  };
}

/** Whether tiles are permitted is asked when the instruction set is chosen: AMX would be the choice but is not. */
function tilesRefused(isa: string, isas: readonly string[], features: number): boolean {
  const present = (features >> featureNames.indexOf('AMX-INT8')) & 1;
  const free = !process.env.LUTRA_ISA || process.env.LUTRA_ISA === 'amx';
  return Boolean(present) && free && isas.includes('amx') && isa !== 'amx';
}

/** Bytes that native tensors hold in this process, outside the JavaScript heap. */
export function nativeMemory(): number {
  return addon().nativeMemory();
}
