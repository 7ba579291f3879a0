import type { Evaluation } from '../evaluation/index.js';
import type { LayerResult } from '../pipeline/index.js';
import type { Comparison, ComparisonRun, RunMeasures } from './comparison.js';

/** A mean over the calibration seeds. */
export interface Estimate {
  readonly mean: number;
  /** Null where nothing tells it. */
  readonly standardError: number | null;
}

/** What the runs of one label came to, those that failed left out. */
export interface ComparisonRow {
  readonly name: string;
  readonly label: string;
  readonly runs: readonly ComparisonRun[];
  readonly failed: readonly ComparisonRun[];
  /** Null where every run failed. */
  readonly measured: RowMeasures | null;
}

export interface RowMeasures {
  readonly bits: number;
  readonly groupSize: number;
  readonly bitsPerWeight: number;
  readonly seconds: number;
  readonly seeds: number;
  readonly texts: readonly TextRow[];
  readonly layers: readonly LayerRow[];
  /** Of the first seed. */
  readonly first: RunMeasures;
}

export interface TextRow {
  readonly perplexity: Estimate;
  readonly kl: Estimate;
  readonly top1Agreement: number;
}

/** What quantization changed of a layer's output, relative to the output. */
export interface LayerRow {
  readonly name: string;
  /** On the calibration windows; in the method's own metric where no windows are held out. */
  readonly error: Estimate;
  /** On the windows held out; null where none are. */
  readonly heldOutError: Estimate | null;
}

/** One row a label, in the order of the runs. */
export function summarize({ runs }: Pick<Comparison, 'runs'>): ComparisonRow[] {
  const labels = [...new Set(runs.map(({ label }) => label))];
  return labels.map((label) => {
    const own = runs.filter((one) => one.label === label);
    const failed = own.filter(({ measured }) => !measured);
    return { name: own[0]?.name ?? label, label, runs: own, failed, measured: measuresOf(own) };
  });
}

function measuresOf(runs: readonly ComparisonRun[]): RowMeasures | null {
  const measured = runs.flatMap((one) => one.measured ?? []);
  const [first] = measured;
  const grid = runs[0]?.recipe?.grid;
  if (!first || !grid) return null;
  return {
    bits: grid.bits,
    groupSize: grid.groupSize,
    bitsPerWeight: meanOf(measured.map(({ bitsPerWeight }) => bitsPerWeight)),
    seconds: meanOf(measured.map(({ seconds }) => seconds)),
    seeds: measured.length,
    texts: first.texts.map((_, i) => textRow(measured.flatMap(({ texts }) => texts[i] ?? []))),
    layers: first.layers.map((_, i) => layerRow(measured.flatMap(({ layers }) => layers[i] ?? []))),
    first,
  };
}

const textRow = (found: readonly Evaluation[]): TextRow => ({
  perplexity: estimate(found.map(({ perplexity, perplexityStandardError }) => [perplexity, perplexityStandardError])),
  kl: estimate(found.map(({ kl }) => [kl?.mean ?? Number.NaN, kl?.standardError ?? null])),
  top1Agreement: meanOf(found.map(({ top1Agreement }) => top1Agreement ?? Number.NaN)),
});

function layerRow(found: readonly LayerResult[]): LayerRow {
  const heldOut = found.flatMap(({ heldOutError }) => heldOutError ?? []);
  return {
    name: found[0]?.name ?? '',
    error: estimate(found.map(({ relativeError, calibrationError }) => [calibrationError ?? relativeError, null])),
    heldOutError: heldOut.length ? estimate(heldOut.map((error) => [error, null])) : null,
  };
}

/**
 * The mean over seeds. Two things make it uncertain: the documents it was measured on, the same for all seeds, so that their
 * share does not shrink with the number of seeds; and the seeds, whose spread does:
 * SE² = mean of the documents' SE² + variance over seeds / seeds.
 */
export function estimate(found: readonly (readonly [value: number, standardError: number | null])[]): Estimate {
  const mean = meanOf(found.map(([value]) => value));
  const count = found.length;
  const known = found.flatMap(([, error]) => error ?? []);
  const documents = known.length ? meanOf(known.map((error) => error * error)) : 0;
  const spread = found.reduce((sum, [value]) => sum + (value - mean) ** 2, 0);
  const seeds = count > 1 ? spread / (count - 1) / count : 0;
  return { mean, standardError: known.length || count > 1 ? Math.sqrt(documents + seeds) : null };
}

const meanOf = (values: readonly number[]): number => values.reduce((sum, value) => sum + value, 0) / values.length;
