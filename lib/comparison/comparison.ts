import type { Evaluation } from '../evaluation/index.js';
import type { LayerResult, Manifest } from '../pipeline/index.js';
import type { Recipe } from '../quantization/index.js';
import type { WeightHistograms } from './histograms.js';

/** Recipes that were run on one model and measured against it. What `lutra compare` writes as compare.json. */
export interface Comparison {
  version: 1;
  lutra: Manifest['lutra'];
  /** The model directory's own name. */
  model: string;
  /** Of the original. */
  bitsPerParameter: number;
  /** Of the runs that need a calibration text; each run has its seed. */
  calibration: CalibrationSettings | null;
  /** The text, and the second one where there is one. */
  texts: ComparedText[];
  /** Runs of the sweep, those to come included. */
  planned: number;
  /** Runs that are through, in the order of the sweep. */
  runs: ComparisonRun[];
}

export interface CalibrationSettings {
  samples: number | null;
  sequenceLength: number | null;
  heldOut: number;
}

/** A text, and the original on it. */
export interface ComparedText {
  name: string;
  original: Evaluation;
}

export interface ComparisonRun {
  name: string;
  label: string;
  seed: number | null;
  recipe: Recipe | null;
  /** Null where the run failed. */
  measured: RunMeasures | null;
  error: Failure | null;
}

export interface Failure {
  code: string;
  message: string;
}

export interface RunMeasures {
  bitsPerWeight: number;
  /** Of quantizing alone. */
  seconds: number;
  /** On each text of the comparison, with the divergence from the original. */
  texts: Evaluation[];
  layers: LayerResult[];
  weights: WeightHistograms;
}
