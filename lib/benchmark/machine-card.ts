import { cpus, totalmem } from 'node:os';
import { doctor } from '../native/index.js';

/** The machine that a result was measured on, without its name. */
export type MachineCard = Record<string, string | number>;

export function machineCard(): MachineCard {
  const { platform, node, isa, threads } = doctor();
  return {
    processor: cpus()[0]?.model.trim() ?? 'unknown',
    processors: cpus().length,
    memoryGigabytes: Math.round(totalmem() / 2 ** 30),
    platform,
    node,
    isa,
    threads,
    date: new Date().toISOString().slice(0, 10),
  };
}
