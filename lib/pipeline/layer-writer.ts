import type { CheckpointWriter } from '../formats/index.js';
import type { BlockGraph, LinearNode } from '../models/index.js';
import { Program, type Weight } from '../ops/index.js';
import {
  type Call,
  disposeSolved,
  type HeadStatistics,
  type PreparedInputs,
  pack,
  type Recipe,
  type SolvedMatrix,
  type Statistics,
  solveHeads,
  solveMatrix,
  type TensorSource,
} from '../quantization/index.js';
import { type Dtype, type QuantizedTensor, Tensor } from '../tensor/index.js';
import type { BadWindow, FinetuneResult, LayerResult, QuantizedLayer, TransformResult } from './job.js';
import type { FinishedBlock } from './journal.js';
import type { Progress } from './progress.js';
import { refuseWarnings } from './strict.js';

/** What the parts of a job share. */
export interface JobContext {
  recipe: Recipe;
  strict: boolean;
  threads: number;
  signal: AbortSignal | undefined;
  report(event: Progress): void;
  onLayer: ((layer: QuantizedLayer) => Promise<void> | void) | undefined;
}

/** The inputs that a layer reads: what the method made of them, and how many tokens they come from. */
export interface LayerInputs extends PreparedInputs {
  statistics: Statistics;
  tokens: number | null;
}

/** A linear layer as its solver left it; the caller's to dispose. */
export interface SolvedNode extends SolvedMatrix {
  node: LinearNode;
  tokens: number | null;
  /** What was solved, where somebody wants to see it beside what it became: a view that keeps its memory. */
  original: Tensor | null;
  [Symbol.dispose](): void;
}

/** Solves layers, packs and writes each to the checkpoint and keeps its report until the block is finished. */
export class LayerWriter {
  readonly #layers: LayerResult[] = [];
  readonly transforms: TransformResult[] = [];
  readonly finetune: FinetuneResult[] = [];
  readonly badWindows: BadWindow[] = [];
  readonly #dense: Map<string, Dtype>;
  /** Tensors of finished blocks. */
  readonly #finished = new Set<string>();
  #solved = 0;

  constructor(
    private readonly context: JobContext,
    private readonly writer: CheckpointWriter,
    private readonly layers: number,
    private readonly blocks: number,
    /** Tensors that are to be written instead of copied, by the type in which they are stored. */
    dense: ReadonlyMap<string, Dtype>,
  ) {
    this.#dense = new Map(dense);
  }

  /** Leaves out what an earlier run has written of finished blocks. */
  takeOver(blocks: readonly FinishedBlock[]): void {
    for (const { layers, tensors } of blocks) {
      this.#solved += layers.length;
      for (const name of Object.keys(tensors)) {
        this.#dense.delete(name);
        this.#finished.add(name);
      }
    }
  }

  /** Ends a block: brings it to the disk. @returns what was written since the last one, and the reports of it */
  async finishBlock(): Promise<FinishedBlock> {
    await this.writer.sync(this.context);
    const tensors = Object.fromEntries([...this.writer.checksums].filter(([name]) => !this.#finished.has(name)));
    for (const name of Object.keys(tensors)) this.#finished.add(name);
    return {
      layers: this.#layers.splice(0),
      transforms: this.transforms.splice(0),
      finetune: this.finetune.splice(0),
      badWindows: this.badWindows.splice(0),
      tensors,
    };
  }

  /** @throws `LUTRA_E_STRICT` for a warning in a strict job, and what the method throws */
  async solve(block: BlockGraph, node: LinearNode, w: Tensor, inputs: LayerInputs): Promise<SolvedNode> {
    const begin = performance.now();
    const solved = await solveMatrix(w, this.context.recipe, inputs, this.#call(node));
    return this.#solvedNode(block, node, w, { ...solved, tokens: inputs.tokens, begin });
  }

  /** The same for a layer whose heads have statistics of their own. */
  async solveHeads(
    block: BlockGraph,
    node: LinearNode,
    w: Tensor,
    inputs: { heads: AsyncIterable<HeadStatistics>; tokens: number | null },
  ): Promise<SolvedNode> {
    const begin = performance.now();
    const solved = await solveHeads(w, this.context.recipe, inputs.heads, this.#call(node));
    return this.#solvedNode(block, node, w, { ...solved, tokens: inputs.tokens, begin });
  }

  #call({ name }: LinearNode): Call {
    const { threads, signal } = this.context;
    return { threads, signal, where: name };
  }

  #solvedNode(
    block: BlockGraph,
    node: LinearNode,
    w: Tensor,
    { begin, ...solved }: SolvedMatrix & { tokens: number | null; begin: number },
  ): SolvedNode {
    const { report } = solved;
    const original = this.context.onLayer ? w.reshape(w.shape) : null;
    const dispose = () => {
      disposeSolved(solved);
      original?.dispose();
    };
    try {
      if (this.context.strict) refuseWarnings(node.name, report.warnings);
      this.#solved += 1;
      this.context.report({
        phase: 'quantize',
        block: block.index + 1,
        blocks: this.blocks,
        layer: node.name,
        index: this.#solved,
        layers: this.layers,
        relativeError: report.relativeError,
        damping: report.damping,
        warnings: report.warnings.map(({ kind }) => kind),
        seconds: (performance.now() - begin) / 1000,
      });
    } catch (error) {
      dispose();
      throw error;
    }
    return { ...solved, node, original, [Symbol.dispose]: dispose };
  }

  /** @returns the packed weights as they are now; the caller's to dispose. */
  async pack(solved: SolvedNode): Promise<QuantizedTensor> {
    return await pack(solved, this.#call(solved.node));
  }

  /** @returns the packed weights, written already; the caller's to dispose. */
  async write(solved: SolvedNode): Promise<QuantizedTensor> {
    const { node, grid, report, tokens, original } = solved;
    const { name } = node;
    const tensor = await this.pack(solved);
    try {
      await this.writer.put(name, tensor, this.context);
      if (original) await this.context.onLayer?.({ name, original, packed: tensor });
    } catch (error) {
      tensor.dispose();
      throw error;
    }
    this.#layers.push({ name, ...grid, ...report, tokens, calibrationError: null, heldOutError: null });
    return tensor;
  }

  /** Writes those of the tensors that are to be written and are not yet. Biases are f32 that the stored type holds exactly. */
  async writeDense(names: readonly string[], weights: ReadonlyMap<string, Weight>): Promise<void> {
    const { signal } = this.context;
    for (const name of names) {
      const dtype = this.#dense.get(name);
      if (!dtype) continue;
      const tensor = weights.get(name) as Tensor;
      using converted = tensor.dtype === dtype ? null : Tensor.zeros(dtype, tensor.shape);
      if (converted) {
        using program = new Program().convert(tensor, converted);
        await program.runAsync(this.context);
      }
      await this.writer.putDense(name, converted ?? tensor, { signal });
      this.#dense.delete(name);
    }
  }

  /** Writes what no block wrote: the embedding, the output layer, norms. */
  async writeRest(source: TensorSource): Promise<void> {
    for (const name of [...this.#dense.keys()]) {
      using tensor = await source.load(name, this.context);
      await this.writeDense([name], new Map([[name, tensor]]));
    }
  }

  /** Adds to the report of a layer that is written. */
  record(name: string, measured: Pick<LayerResult, 'calibrationError' | 'heldOutError'>): void {
    const result = this.#layers.find((one) => one.name === name);
    if (result) Object.assign(result, measured);
  }
}
