import { type BenchCase, weightsName } from './cases.js';
import type { Entry } from './entries.js';
import type { MachineCard } from './machine-card.js';
import type { Contestant } from './rounds.js';
import { shapeName } from './shapes.js';
import { median, ratioOfRounds, summarize } from './statistics.js';
import { coldBytes } from './weights.js';

/** What the samples of one contestant say. Times are of one call, from the JavaScript call to its return. */
export interface EntryRow {
  /** Who computed, and how: `lutra` and a mode, or a peer and one of its kernels. */
  by: string;
  mode: string;
  milliseconds: number;
  p10: number;
  p90: number;
  samples: number;
  normalizedMeanSquaredError: number;
  /** Why a peer has no result; its numbers are NaN then. */
  failure?: string;
}

/** One line of a result: a product with quantized weights. */
export interface BenchRow extends EntryRow {
  shape: string;
  weights: string;
  groupSize: number;
  tokens: number;
  threads: number;
  caches: string;
  matrices: number;
  /** Bytes of all of them. Tiny matrices rotated over in `cold` may fit a cache after all. */
  rotatedBytes: number;
  /** Packed bytes of the matrix a second. */
  gigabytesPerSecond: number;
  /** Memory read with the same threads, between the same bursts. */
  readGigabytesPerSecond: number;
  /** The one of the other. Out of warm caches it passes 1. */
  shareOfReadBandwidth: number;
  /** 1e9 multiplications with a weight a second. */
  gigaMacsPerSecond: number;
}

export async function entryRow(entry: Entry, rounds: readonly number[][]): Promise<EntryRow> {
  const { median: milliseconds, p10, p90, samples } = summarize(rounds.flat());
  const { by, mode } = entry;
  const row = { by, mode, milliseconds, p10, p90, samples, normalizedMeanSquaredError: await entry.error() };
  if (!entry.failure) return row;
  const none = Number.NaN;
  return { ...row, milliseconds: none, p10: none, p90: none, normalizedMeanSquaredError: none, failure: entry.failure };
}

/** @param probeRounds of the probe, measured between the same bursts */
export async function benchRow(
  one: BenchCase,
  entry: Entry,
  rounds: readonly number[][],
  probe: Contestant,
  probeRounds: readonly number[][],
): Promise<BenchRow> {
  const row = await entryRow(entry, rounds);
  return {
    ...row,
    shape: shapeName(one.shape),
    weights: weightsName(one),
    groupSize: one.groupSize,
    tokens: one.tokens,
    threads: one.threads,
    caches: one.caches,
    matrices: entry.matrices,
    rotatedBytes: entry.matrices * entry.work,
    gigabytesPerSecond: entry.work / row.milliseconds / 1e6,
    readGigabytesPerSecond: probe.work / median(probeRounds.flat()) / 1e6,
    shareOfReadBandwidth: (entry.work / probe.work) * ratioOfRounds(probeRounds, rounds).median,
    gigaMacsPerSecond: (one.shape.rows * one.shape.cols * one.tokens) / row.milliseconds / 1e6,
  };
}

/** Whether weights came from memory: a share of its speed tells nothing about those out of a cache. */
const fromMemory = (row: BenchRow): boolean => row.caches === 'cold' && row.rotatedBytes >= coldBytes;
const cachesOf = (row: BenchRow): string =>
  row.caches === 'cold' && row.rotatedBytes < coldBytes ? `cold (${megabytes(row.rotatedBytes)} MB)` : row.caches;
const megabytes = (bytes: number): string => (bytes / 1e6).toFixed(bytes < 1e7 ? 1 : 0);

/** Heads and cells of a table for people. */
export function tableOf(rows: readonly BenchRow[]): { head: string[]; cells: string[][] } {
  const head = [
    'shape',
    'caches',
    'tokens',
    'threads',
    'weights',
    'group',
    'what',
    'ms',
    'p10',
    'p90',
    'GB/s',
    'of memory',
    'GMAC/s',
  ];
  const number = (value: number, digits: number) => (Number.isNaN(value) ? '-' : value.toFixed(digits));
  const cells = rows.map((row) => [
    row.shape,
    cachesOf(row),
    String(row.tokens),
    String(row.threads),
    row.weights,
    row.groupSize === -1 ? 'row' : String(row.groupSize),
    `${row.by} ${row.mode}`,
    number(row.milliseconds, 4),
    number(row.p10, 4),
    number(row.p90, 4),
    number(row.gigabytesPerSecond, 1),
    fromMemory(row) && !row.failure ? `${(100 * row.shareOfReadBandwidth).toFixed(0)} %` : '-',
    number(row.gigaMacsPerSecond, 0),
    row.failure ?? row.normalizedMeanSquaredError.toExponential(1),
  ]);
  return { head: [...head, 'NMSE'], cells };
}

/** JSON lines: the machine first, then a line a row. */
export const linesOf = (machine: MachineCard, rows: readonly object[]): string =>
  [{ machine }, ...rows].map((line) => `${JSON.stringify(line)}\n`).join('');
