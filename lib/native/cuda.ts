import { type LutraErrorCode, lutraError } from '../errors.js';
import { addonAsIs } from './loader.js';

/** Whether the CUDA backend can be used, and if not, why. By the numbers of native/device/device.h. */
export const cudaStates = [
  'ready',
  'notBuilt',
  'unusable',
  'abiMismatch',
  'noDriver',
  'driverTooOld',
  'noDevice',
  'noArchitecture',
  'noMemory',
  'failed',
] as const;
export type CudaState = (typeof cudaStates)[number];

/** What is known about the CUDA backend and one device. */
export interface CudaReport {
  state: CudaState;
  /** Whether the backend's object is there. */
  built: boolean;
  /** One sentence for people. */
  message: string;
  /** The backend's object, or where it would be. */
  path: string;
  /** Compute capabilities that the object was built for, for example "80 86 89 90"; empty where it does not open. */
  builtFor: string;
  /** Highest CUDA version that the driver runs, for example "13.0"; null without a driver. */
  driver: string | null;
  /** Name and compute capability of the device; null where there is none. */
  device: string | null;
}

const versionName = (version: number) => `${Math.floor(version / 1000)}.${Math.floor((version % 1000) / 10)}`;
const capabilityName = (capability: number) => `${Math.floor(capability / 10)}.${capability % 10}`;

/** Where LUTRA_CUDA_PATH says that the backend is; null: beside the addon. */
export const cudaPath = (): string | null => process.env.LUTRA_CUDA_PATH || null;

/** Where tensors are computed with: the processor, or a device of the CUDA backend. */
export type Device = 'cpu' | `cuda:${number}`;

/** The number of a CUDA device; null for the processor. */
export function cudaIndex(device: Device): number | null {
  return device === 'cpu' ? null : Number(device.slice('cuda:'.length));
}

/** Looks for the CUDA backend, where LUTRA_CUDA_PATH says or beside the addon, and at a device. */
export function probeCuda(device = 0): CudaReport {
  const found = addonAsIs().probeCuda(device, cudaPath());
  const state = cudaStates[found.state] ?? 'failed';
  const driver = found.driverVersion ? versionName(found.driverVersion) : null;
  const name = found.name ? `${found.name}, compute capability ${capabilityName(found.computeCapability)}` : null;
  const needs = versionName(found.runtimeVersion);
  const messages: Record<CudaState, string> = {
    ready: `${name}`,
    notBuilt: 'the CUDA backend is not built',
    unusable: `the CUDA backend cannot be opened: ${found.detail}`,
    abiMismatch: 'the CUDA backend belongs to another version of lutra',
    noDriver: 'there is no NVIDIA driver',
    driverTooOld: `the NVIDIA driver runs CUDA ${driver}, the backend needs ${needs}`,
    noDevice: 'the NVIDIA driver shows no such device',
    noArchitecture: `the CUDA backend has no code for this device (${name}); it was built for ${found.builtFor}`,
    noMemory: 'the device has no memory left',
    failed: `the device failed: ${found.detail}`,
  };
  const { path, builtFor } = found;
  return { state, built: state !== 'notBuilt', message: messages[state], path, builtFor, driver, device: name };
}

const failures: Record<Exclude<CudaState, 'ready'>, { code: LutraErrorCode; hint: string }> = {
  notBuilt: { code: 'LUTRA_E_CUDA_NOT_BUILT', hint: 'Build it in a clone of the repository: npm run build:cuda.' },
  unusable: { code: 'LUTRA_E_CUDA_OBJECT', hint: 'Build it anew: npm run build:cuda.' },
  abiMismatch: { code: 'LUTRA_E_CUDA_ABI', hint: 'Build addon and backend from the same source.' },
  noDriver: { code: 'LUTRA_E_CUDA_NO_DRIVER', hint: "Install NVIDIA's driver, or use the CPU." },
  driverTooOld: { code: 'LUTRA_E_CUDA_DRIVER', hint: 'Install a newer driver.' },
  noDevice: { code: 'LUTRA_E_CUDA_NO_DEVICE', hint: 'Look at CUDA_VISIBLE_DEVICES and nvidia-smi.' },
  noArchitecture: {
    code: 'LUTRA_E_CUDA_ARCHITECTURE',
    hint: 'Build the backend for this device: LUTRA_CUDA_ARCHS names what it is built for.',
  },
  noMemory: { code: 'LUTRA_E_CUDA_MEMORY', hint: 'End other processes that use the device.' },
  failed: { code: 'LUTRA_E_DEVICE', hint: 'See what nvidia-smi and the system log say of it.' },
};

/**
 * The report of a device that can be used.
 *
 * @throws the code of `failures` for what keeps it from being used; `LUTRA_E_DEVICE` where the device itself fails
 */
export function requireCuda(device: number, where: string): CudaReport {
  const report = probeCuda(device);
  if (report.state === 'ready') return report;
  const { code, hint } = failures[report.state];
  throw lutraError(code, { message: report.message, where, found: report.state, hint });
}
