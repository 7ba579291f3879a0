import { lutraError } from '../errors.js';
import type { CheckpointWriter } from '../formats/index.js';
import type { BlockGraph, LinearNode } from '../models/index.js';
import {
  gridOf,
  type PreparedInputs,
  quantizeMatrix,
  type Recipe,
  type Statistics,
  type Warning,
} from '../quantization/index.js';
import type { QuantizedTensor, Tensor } from '../tensor/index.js';
import type { LayerResult } from './job.js';
import type { Progress } from './progress.js';

/** What the parts of a job share. */
export interface JobContext {
  recipe: Recipe;
  strict: boolean;
  threads: number;
  signal: AbortSignal | undefined;
  report(event: Progress): void;
}

/** The inputs that a layer reads: what the method made of them, and how many tokens they come from. */
export interface LayerInputs extends PreparedInputs {
  statistics: Statistics;
  tokens: number | null;
}

/** Quantizes layers, writes each to the checkpoint and keeps its report. */
export class LayerWriter {
  readonly results: LayerResult[] = [];

  constructor(
    private readonly context: JobContext,
    private readonly writer: CheckpointWriter,
    private readonly layers: number,
    private readonly blocks: number,
  ) {}

  /** @returns the packed weights, written already; the caller's to dispose. */
  async quantize(block: BlockGraph, node: LinearNode, w: Tensor, inputs: LayerInputs): Promise<QuantizedTensor> {
    const { recipe, threads, signal } = this.context;
    const { name } = node;
    const { tensor, report } = await quantizeMatrix(w, recipe, inputs, { threads, signal, where: name });
    try {
      if (this.context.strict) refuseWarnings(name, report.warnings);
      await this.writer.put(name, tensor, { signal });
    } catch (error) {
      tensor.dispose();
      throw error;
    }
    this.results.push({ name, ...gridOf(recipe, name), ...report, tokens: inputs.tokens });
    this.context.report({
      phase: 'quantize',
      block: block.index + 1,
      blocks: this.blocks,
      layer: name,
      index: this.results.length,
      layers: this.layers,
      relativeError: report.relativeError,
    });
    return tensor;
  }
}

function refuseWarnings(layer: string, [first]: readonly Warning[]): void {
  if (first)
    throw lutraError('LUTRA_E_STRICT', {
      message: first.message,
      where: layer,
      found: first.kind,
      hint: 'Without `strict` the job goes on and records it.',
    });
}
