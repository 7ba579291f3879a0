import { rm } from 'node:fs/promises';
import { basename, resolve } from 'node:path';
import { LutraError, lutraError } from '../errors.js';
import { type Evaluation, type EvaluationOptions, type EvaluationProgress, evaluate } from '../evaluation/index.js';
import { OutputDirectory } from '../formats/index.js';
import { loadModel, type Model } from '../inference/index.js';
import { type CalibrationJob, givenBack, type Progress, provenance, quantizeModel } from '../pipeline/index.js';
import type { Recipe } from '../quantization/index.js';
import type { ComparedText, Comparison, ComparisonRun, RunMeasures } from './comparison.js';
import { HistogramCollector } from './histograms.js';
import { type PlannedRun, planRuns, type Sweep } from './plan.js';

/** A text to measure on. */
export interface TextToCompare extends Pick<EvaluationOptions, 'text' | 'separator' | 'context' | 'maxTokens'> {
  /** What the result calls it. */
  name: string;
}

export interface ComparisonJob extends Sweep {
  /** Directory of the original. */
  model: string;
  /** For the recipes that need one; a recipe that misses it fails. */
  calibration?: CalibrationJob | undefined;
  /** The text, and a second one where there is one. */
  texts: readonly TextToCompare[];
  /** Of the packed products while measuring; 'exact' by default. */
  mode?: EvaluationOptions['mode'];
  threads?: number | undefined;
  /** A directory to be made for one checkpoint at a time, and to be removed. */
  scratch: string;
  /** Runs of an earlier comparison with the same model, texts and calibration: those of the same recipe are not run again. */
  finished?: readonly ComparisonRun[] | undefined;
  signal?: AbortSignal | undefined;
  onProgress?: ((event: ComparisonProgress) => void) | undefined;
  /** Called, and awaited, when another run is through: what there is so far. */
  onRun?: ((comparison: Comparison) => Promise<void> | void) | undefined;
}

/** A step of a run, or of the original's measurement as run 0 of `runs`. */
export interface ComparisonProgress {
  readonly run: number;
  readonly runs: number;
  /** What is being run, with its seed. */
  readonly what: string;
  readonly step: Progress | EvaluationProgress;
}

/**
 * Quantizes a model by every recipe of a sweep, and measures each result against the original. A recipe that fails with an
 * error of lutra is a run with that error, and the others go on.
 *
 * @throws what the model, the texts and the sweep give cause for before anything is quantized; rejects with `signal.reason`.
 */
export async function compareRecipes(job: ComparisonJob): Promise<Comparison> {
  const { model, threads, mode = 'exact', signal, calibration } = job;
  const planned = planRuns(job);
  using reference = await loadModel(model, { mode, threads, signal });
  const comparison: Comparison = {
    version: 1,
    lutra: provenance(),
    model: basename(resolve(model)),
    bitsPerParameter: reference.bitsPerParameter,
    calibration: calibration
      ? {
          samples: calibration.samples ?? null,
          sequenceLength: calibration.sequenceLength ?? null,
          heldOut: calibration.heldOut ?? 0,
        }
      : null,
    texts: await measureOriginal(reference, job, planned.length),
    planned: planned.length,
    runs: [],
  };
  for (const [index, plan] of planned.entries()) {
    const report = (step: Progress | EvaluationProgress) =>
      job.onProgress?.({ run: index + 1, runs: planned.length, what: titleOf(plan), step });
    comparison.runs.push(earlier(job, plan) ?? (await run(job, plan, reference, report)));
    await job.onRun?.(comparison);
  }
  return comparison;
}

/** What a run is called: its label, and its seed where it has one. */
export const titleOf = ({ label, seed }: Pick<PlannedRun, 'label' | 'seed'>): string =>
  seed === null ? label : `${label}, seed ${seed}`;

async function measureOriginal(reference: Model, job: ComparisonJob, runs: number): Promise<ComparedText[]> {
  const onProgress = (step: EvaluationProgress) => job.onProgress?.({ run: 0, runs, what: 'the original', step });
  const texts: ComparedText[] = [];
  for (const { name, ...text } of job.texts)
    texts.push({
      name,
      original: await evaluate(reference, { ...text, mode: job.mode, signal: job.signal, onProgress }),
    });
  return texts;
}

/** The same run of an earlier comparison, where it is at hand. */
function earlier({ finished = [] }: ComparisonJob, { label, seed, recipe }: PlannedRun): ComparisonRun | undefined {
  const same = JSON.stringify(recipe);
  return finished.find((one) => one.label === label && one.seed === seed && JSON.stringify(one.recipe) === same);
}

async function run(
  job: ComparisonJob,
  plan: PlannedRun,
  reference: Model,
  report: (step: Progress | EvaluationProgress) => void,
): Promise<ComparisonRun> {
  if (plan.error) return { ...plan, measured: null };
  try {
    return { ...plan, measured: await measure(job, plan, reference, report) };
  } catch (error) {
    job.signal?.throwIfAborted();
    if (!(error instanceof LutraError)) throw error;
    const { code, message } = error;
    return { ...plan, measured: null, error: { code, message } };
  } finally {
    await givenBack(job.signal);
    await rm(job.scratch, { recursive: true, force: true });
    // Where another job is at work there, this one has failed for that.
    await OutputDirectory.removeLeftover(job.scratch).catch(() => {});
  }
}

async function measure(
  job: ComparisonJob,
  { recipe, seed }: PlannedRun,
  reference: Model,
  onProgress: (step: Progress | EvaluationProgress) => void,
): Promise<RunMeasures> {
  const { model, mode = 'exact', threads, scratch, signal } = job;
  const histograms = new HistogramCollector();
  const { bitsPerWeight, seconds, layers } = await quantizeModel({
    ...{ model, out: scratch, recipe: recipe as Recipe, threads, signal, onProgress },
    calibration: calibrationOf(job, seed),
    // The histograms need every layer of the run, and no later run has use for a part of this one.
    resume: false,
    onLayer: (layer) => histograms.add(layer, signal),
  });
  using quantized = await loadModel(scratch, { mode, threads, signal });
  const texts: Evaluation[] = [];
  for (const { name, ...text } of job.texts)
    texts.push(countable(name, await evaluate(quantized, { ...text, reference, mode, signal, onProgress })));
  return { bitsPerWeight, seconds, texts, layers, weights: histograms.histograms };
}

/** A recipe without a seed needs no text: it is measured on the windows that are held out with the first one. */
const calibrationOf = ({ calibration, seeds }: ComparisonJob, seed: number | null): CalibrationJob | undefined =>
  calibration && { ...calibration, seed: seed ?? seeds[0] };

/** @throws `LUTRA_E_NON_FINITE` for a perplexity beyond all numbers: JSON has none for it */
function countable(text: string, found: Evaluation): Evaluation {
  if (Number.isFinite(found.perplexity)) return found;
  throw lutraError('LUTRA_E_NON_FINITE', {
    message: 'the perplexity is larger than any number',
    where: text,
    found: found.perplexity,
  });
}
