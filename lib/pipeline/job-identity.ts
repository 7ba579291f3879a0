import { lutraError } from '../errors.js';
import type { Recipe } from '../quantization/index.js';
import type { CalibrationInputs } from './calibration-inputs.js';
import type { Manifest } from './manifest.js';

/** Everything that the bytes of a checkpoint depend on: two runs with one identity are one job. */
export interface JobIdentity {
  lutra: Manifest['lutra'];
  /** Normalised; widths that are allocated follow from it. */
  recipe: Recipe;
  shardBytes: number;
  calibration: CalibrationInputs['record'] | null;
  /** SHA-256 by file name. */
  inputs: Record<string, string>;
}

/**
 * @param found of the unfinished job in `where`
 * @param expected of the job at hand, as far as it is known
 * @throws `LUTRA_E_RESUME_MISMATCH` that names what differs
 */
export function requireSameJob(found: JobIdentity, expected: Partial<JobIdentity>, where: string): void {
  const differing = Object.entries(expected).flatMap(([part, value]) =>
    differences(found[part as keyof JobIdentity], value, part),
  );
  if (differing.length === 0) return;
  throw lutraError('LUTRA_E_RESUME_MISMATCH', {
    message: 'the unfinished work here is of another job',
    where,
    items: differing.map((one) => `${one.path}: unfinished work has ${one.found}, this job has ${one.expected}`),
    hint: 'Run that job again, choose another output directory, or remove its work: `resume: false`, or --no-resume on the command line.',
  });
}

interface Difference {
  path: string;
  found: string;
  expected: string;
}

/** Where two values of JSON differ, by the paths of the smallest parts. */
function differences(found: unknown, expected: unknown, path: string): Difference[] {
  if (isRecord(found) && isRecord(expected)) {
    // Of another method, the options have nothing to be compared with.
    if (found.method !== expected.method) return differences(found.method, expected.method, `${path}.method`);
    const keys = new Set([...Object.keys(found), ...Object.keys(expected)]);
    return [...keys].flatMap((key) => differences(own(found, key), own(expected, key), `${path}.${key}`));
  }
  if (JSON.stringify(found) === JSON.stringify(expected)) return [];
  return [{ path, found: textOf(found), expected: textOf(expected) }];
}

/** A value as a line may show it: hashes are told apart by their beginning. */
function textOf(value: unknown): string {
  if (value === undefined || value === null) return 'none';
  if (typeof value === 'string' && /^[0-9a-f]{64}$/.test(value)) return `${value.slice(0, 16)}…`;
  const text = JSON.stringify(value);
  return text.length > 120 ? `${text.slice(0, 117)}...` : text;
}

/** A journal may have keys that every object inherits. */
const own = (record: Record<string, unknown>, key: string): unknown =>
  Object.hasOwn(record, key) ? record[key] : undefined;

const isRecord = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value);
