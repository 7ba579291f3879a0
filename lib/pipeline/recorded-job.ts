import { join } from 'node:path';
import { lutraError } from '../errors.js';
import { addon } from '../native/index.js';
import { checkOptions } from '../ops/index.js';
import { type ExpectedInputs, jobKeys, type QuantizationJob } from './job.js';
import { type Manifest, manifestFile, provenance } from './manifest.js';
import { readManifest } from './read-manifest.js';

/** What a manifest does not tell of a job: where things are, and how it is to run. */
export type Repetition = Omit<QuantizationJob, Recorded> & {
  /** The calibration text, where the job read one; how it is cut stands in the manifest. */
  calibration?: { file: string; texts?: undefined } | { texts: readonly string[]; file?: undefined } | undefined;
};

type Recorded = 'recipe' | 'calibration' | 'shardBytes' | 'expected';

const { recipe: _, shardBytes: __, expected: ___, ...repetitionKeys } = jobKeys;
const textKeys = { file: true, texts: true } as const;

/** What the manifest tells is not to be told again: it would have no effect. @throws `LUTRA_E_OPTION` */
function checkRepetition(repetition: Repetition): void {
  checkOptions(repetition, repetitionKeys, 'recordedJob');
  if (repetition.calibration != null) checkOptions(repetition.calibration, textKeys, 'recordedJob.calibration');
}

/**
 * The job that made the checkpoint in `directory`, to be run again on the same inputs: `quantizeModel` then writes the same
 * bytes, or refuses inputs that are others than the manifest's.
 *
 * @throws `LUTRA_E_OPTION` for fields that the manifest tells itself; `LUTRA_E_MANIFEST`; `LUTRA_E_NOT_REPEATABLE` for a checkpoint of another version of lutra or another instruction set,
 *   whose bytes would differ; `LUTRA_E_OPTION` where the calibration text is missing, or one is given and none was read
 */
export async function recordedJob(directory: string, repetition: Repetition): Promise<QuantizationJob> {
  checkRepetition(repetition);
  const manifest = await readManifest(directory);
  const where = join(directory, manifestFile);
  requireSameMaker(manifest, where);
  const { recipe, calibration, shardBytes, inputs } = manifest;
  const expected = { inputs, calibration: calibration?.sha256 ?? null };
  if (!calibration) {
    if (repetition.calibration)
      throw lutraError('LUTRA_E_OPTION', {
        message: 'the job read no calibration text',
        where: 'calibration',
        hint: 'Leave the text out: `calibration`, or --calibration on the command line.',
      });
    return { ...repetition, calibration: undefined, recipe, shardBytes, expected };
  }
  if (!repetition.calibration)
    throw lutraError('LUTRA_E_OPTION', {
      message: 'the job read a calibration text',
      where: 'calibration',
      expected: `the text with SHA-256 ${calibration.sha256}`,
      hint: 'Give the same text: `calibration`, or --calibration on the command line.',
    });
  const { separator, samples, heldOut, sequenceLength, seed, maxBadWindows } = calibration;
  const cut = { separator: separator ?? undefined, samples, heldOut, sequenceLength, seed, maxBadWindows };
  return { ...repetition, calibration: { ...repetition.calibration, ...cut }, recipe, shardBytes, expected };
}

function requireSameMaker({ lutra }: Manifest, where: string): void {
  const here = provenance();
  const found = `lutra ${here.version}, format ${here.formatVersion}, on ${here.isa}`;
  const expected = `lutra ${lutra.version}, format ${lutra.formatVersion}, on ${lutra.isa}`;
  if (found === expected) return;
  const sameVersion = lutra.version === here.version;
  const runsHere = addon().describe().isas.includes(lutra.isa);
  const isaHint = runsHere ? `Set LUTRA_ISA=${lutra.isa}.` : `It takes a machine with ${lutra.isa}.`;
  throw lutraError('LUTRA_E_NOT_REPEATABLE', {
    message: 'something else made this checkpoint, and would not make the same bytes here',
    where,
    found,
    expected,
    hint: sameVersion ? isaHint : `Install lutra ${lutra.version}.`,
  });
}

/** @throws `LUTRA_E_INPUT_CHANGED` where files of the model are not those that are expected, with their names */
export function requireInputs(
  expected: ExpectedInputs | undefined,
  found: Readonly<Record<string, string>>,
  model: string,
): void {
  if (!expected) return;
  const { inputs } = expected;
  const names = [...new Set([...Object.keys(inputs), ...Object.keys(found)])].sort();
  const differing = names
    .filter((name) => inputs[name] !== found[name])
    .map((name) => `${name} (${!found[name] ? 'missing' : inputs[name] ? 'changed' : 'new'})`);
  if (differing.length) throw changed(model, 'the model is not the one that the manifest names', differing.join(', '));
}

/** @throws `LUTRA_E_INPUT_CHANGED` where the calibration text is not the one that is expected */
export function requireText(expected: ExpectedInputs | undefined, found: string, where: string): void {
  if (!expected || expected.calibration === found) return;
  throw changed(where, 'the calibration text is not the one that the manifest names', found, expected.calibration);
}

const changed = (where: string, message: string, found: string, expected?: string | null) =>
  lutraError('LUTRA_E_INPUT_CHANGED', {
    message,
    where,
    found,
    expected: expected ?? undefined,
    hint: 'Another input makes another checkpoint: find the old one, or quantize anew by the recipe alone.',
  });
