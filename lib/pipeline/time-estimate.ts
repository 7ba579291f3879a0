import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { HessianCollector } from '../calibration/index.js';
import { LutraError } from '../errors.js';
import { hashFile } from '../formats/index.js';
import type { BlockGraph, LinearNode } from '../models/index.js';
import type { Weight } from '../ops/index.js';
import { disposeSolved, isSequential, needsOf, prepareInputs, solveMatrix } from '../quantization/index.js';
import type { Tensor } from '../tensor/index.js';
import { ActivationStore } from './activation-store.js';
import { BlockRunner } from './block-runner.js';
import { loadBlock } from './block-work.js';
import { withClosing } from './closing.js';
import { fisherWindows } from './fisher.js';
import type { QuantizationJob } from './job.js';
import type { JobContext } from './layer-writer.js';
import type { PreparedJob } from './prepare-job.js';
import { WindowScreen } from './window-screen.js';

export interface TimeEstimate {
  /** Of the whole job, or of what is left of it. */
  seconds: number;
  secondsPerBlock: number;
  /** What was measured, and what was left out, in sentences. */
  basis: string[];
}

/** Seconds that measuring may take before no further layer is begun, and after which the running one is given up. */
const [enough, most] = [10, 60];
/** Tokens of the window that is measured. */
const probeTokens = 1024;
const hashedBytes = 2 ** 27;

/**
 * Estimates a job's time by running some of it: its first block's weights are loaded, a short window runs through it, and its
 * layers are solved, the cheapest first, as long as there is time. The rest is in proportion to what was measured.
 *
 * @returns null where not even the cheapest layer was solved in time
 * @throws `LUTRA_E_NON_FINITE` where more windows overflow than the job may leave out
 */
export async function measureTime(prepared: PreparedJob, job: QuantizationJob): Promise<TimeEstimate | null> {
  const deadline = AbortSignal.timeout(1000 * most);
  const signal = job.signal ? AbortSignal.any([job.signal, deadline]) : deadline;
  const { recipe } = prepared;
  const context = { recipe, threads: job.threads ?? 0, strict: false, signal, report: () => {}, onLayer: undefined };
  try {
    return await new TimeProbe(prepared, context).measure();
  } catch (error) {
    if (error === deadline.reason) return null;
    throw error;
  }
}

interface SolvedTime {
  node: LinearNode;
  seconds: number;
}

/** Seconds of a window with its Hessians, and without. */
interface WindowTimes {
  collect: number;
  plain: number;
}

type Passed = [block: BlockGraph, weights: ReadonlyMap<string, Weight>, collector: HessianCollector];

class TimeProbe {
  readonly #begin = performance.now();
  readonly #basis: string[] = [];

  constructor(
    private readonly prepared: PreparedJob,
    private readonly context: JobContext,
  ) {}

  async measure(): Promise<TimeEstimate | null> {
    const { model, calibration } = this.prepared;
    const block = model.graph.blocks[0]!;
    const hashing = await this.#hashing();
    const collector = new HessianCollector();
    let weights: Map<string, Weight> | null = null;
    try {
      const loading = await secondsOf(async () => {
        weights = await loadBlock(model, block, this.context);
      });
      const passing = calibration ? await this.#passing(block, weights!, collector) : 0;
      const solving = await this.#solving(block, weights!, collector);
      if (solving === null) return null;
      // Weights are read twice: to be looked through, and to be quantized.
      const secondsPerBlock = 2 * loading + passing + solving;
      const seconds = hashing + (model.graph.blocks.length - this.#finished()) * secondsPerBlock;
      return { seconds, secondsPerBlock, basis: [...this.#basis, ...this.#leftOut()] };
    } finally {
      collector.dispose();
      for (const tensor of (weights as Map<string, Weight> | null)?.values() ?? []) tensor.dispose();
    }
  }

  /** Blocks that are taken over from an earlier run. */
  #finished(): number {
    const { unfinished } = this.prepared;
    const finished = (unfinished?.takenOver && unfinished.blocks) || 0;
    if (finished) this.#basis.push(`without ${finished} finished blocks`);
    return finished;
  }

  /** Of all input files, from the rate at the beginning of the largest one. */
  async #hashing(): Promise<number> {
    const files = [...this.prepared.inputs].sort((a, b) => b.bytes - a.bytes);
    const total = files.reduce((sum, { bytes }) => sum + bytes, 0);
    const bytes = Math.min(hashedBytes, files[0]!.bytes);
    const seconds = await secondsOf(() => hashFile(files[0]!.path, { signal: this.context.signal, most: bytes }));
    return bytes ? (seconds * total) / bytes : 0;
  }

  /** Of one block's passes over all windows; the Hessians of a short window are left in the collector. */
  async #passing(
    block: BlockGraph,
    weights: ReadonlyMap<string, Weight>,
    collector: HessianCollector,
  ): Promise<number> {
    const { calibration, recipe } = this.prepared;
    const { windows, heldOut, sequenceLength } = calibration!;
    const tokens = Math.min(probeTokens, sequenceLength);
    const { collect, plain } = await this.#firstGoodWindow(tokens, block, weights, collector);
    const inputs = new Set(block.linears.map(({ input }) => input)).size;
    const collections = needsOf(recipe).includes('hessian') ? (isSequential(recipe) ? inputs : 1) : 0;
    const looks = heldOut.length ? 1 : 0;
    const others = 1 + (recipe.finetune.length ? 1 : 0);
    // Forwards, and forwards and backwards.
    const derivatives = recipe.allocation ? 4 * fisherWindows(windows.length, sequenceLength) : 0;
    const seconds =
      windows.length * ((collections + looks) * collect + others * plain) +
      derivatives * plain +
      heldOut.length * (collect + plain);
    this.#basis.push(`a window of ${tokens} tokens through the first block took ${text(collect)}`);
    return (seconds * sequenceLength) / tokens;
  }

  /** Leaves out as many windows that overflow as the job may. @throws `LUTRA_E_NON_FINITE` where the job will, too */
  async #firstGoodWindow(tokens: number, ...rest: Passed): Promise<WindowTimes> {
    const { windows, record } = this.prepared.calibration!;
    const last = Math.min(windows.length - 1, record.maxBadWindows);
    for (let window = 0; ; window++) {
      try {
        return await this.#window(window, tokens, ...rest);
      } catch (error) {
        const bad = error instanceof LutraError && error.code === 'LUTRA_E_NON_FINITE';
        if (!bad || window >= last) throw error;
      }
    }
  }

  /** The beginning of one window through the block. */
  async #window(window: number, tokens: number, ...[block, weights, collector]: Passed): Promise<WindowTimes> {
    const { model, calibration } = this.prepared;
    const windows = calibration!.windows.slice(0, window + 1).map((ids) => ids.slice(0, tokens));
    const { strict, threads, signal } = this.context;
    // Those before it were left out.
    const screening = { budget: window, strict, what: 'calibration window', threads, signal };
    const before = Array.from({ length: window }, (_, bad) => ({ block: block.index, window: bad }));
    const screen = new WindowScreen(windows.length, screening, before);
    const directory = await mkdtemp(join(tmpdir(), 'lutra-plan-'));
    let store: ActivationStore | null = null;
    let runner: BlockRunner | null = null;
    const measure = async () => {
      store = await ActivationStore.create(join(directory, 'activations.scratch'), signal);
      const passes = new BlockRunner(model.graph.config, tokens, windows.length, store, screen, this.context);
      runner = passes;
      using table = await model.load(model.graph.embedding, this.context);
      await passes.embed(table, windows, () => {});
      const collect = await medianSeconds(() => {
        collector.reset();
        return passes.run(block, weights, { tap: collector.tap, onWindow: () => collector.ran() });
      });
      return { collect, plain: await medianSeconds(() => passes.run(block, weights, { onWindow: () => {} })) };
    };
    return await withClosing(
      measure,
      () => runner?.dispose(),
      () => store?.dispose(),
      () => rm(directory, { recursive: true, force: true }),
    );
  }

  /** Of one block's layers. */
  async #solving(
    block: BlockGraph,
    weights: ReadonlyMap<string, Weight>,
    collector: HessianCollector,
  ): Promise<number | null> {
    const ascending = [...block.linears].sort((a, b) => this.#cost(a) - this.#cost(b));
    const solved: SolvedTime[] = [];
    const hessians = new Map<string, ReturnType<HessianCollector['take']>>();
    try {
      for (const node of ascending) {
        if (solved.length && (performance.now() - this.#begin) / 1000 > enough) break;
        const same = solved.find(
          ({ node: { outFeatures, inFeatures } }) => outFeatures === node.outFeatures && inFeatures === node.inFeatures,
        );
        if (same) {
          solved.push({ node, seconds: same.seconds });
          continue;
        }
        const needed = needsOf(this.context.recipe).includes('hessian');
        if (needed && !hessians.has(node.input)) hessians.set(node.input, collector.take(node.input));
        const seconds = await secondsOf(() => this.#solve(node, weights, hessians.get(node.input)));
        solved.push({ node, seconds });
      }
    } finally {
      for (const { hessian } of hessians.values()) hessian.dispose();
    }
    const last = solved.at(-1);
    if (!last) return null;
    const rest = ascending.slice(solved.length).reduce((sum, node) => sum + this.#cost(node), 0);
    this.#basis.push(`${solved.length} of the ${ascending.length} layers of the first block were solved`);
    return solved.reduce((sum, { seconds }) => sum + seconds, 0) + (last.seconds * rest) / this.#cost(last.node);
  }

  async #solve(node: LinearNode, weights: ReadonlyMap<string, Weight>, statistics: { hessian?: Tensor } = {}) {
    const { recipe } = this.context;
    const call = { ...this.context, where: node.name };
    const inputs = await prepareInputs(recipe, statistics, call);
    try {
      disposeSolved(await solveMatrix(weights.get(node.name) as Tensor, recipe, { ...inputs, statistics }, call));
    } finally {
      inputs.release();
    }
  }

  /** Multiplications, up to a factor: what a column makes good in the columns behind it, and the Hessian's factor. */
  #cost({ outFeatures: m, inFeatures: k }: LinearNode): number {
    return needsOf(this.context.recipe).includes('hessian') ? m * k ** 2 + k ** 3 / 3 : m * k;
  }

  #leftOut(): string[] {
    const { recipe } = this.prepared;
    const left: string[] = [];
    if (recipe.finetune.length) left.push('finetuning is not measured: it adds to this');
    if (recipe.transforms.length) left.push('transforms are not measured: they add to this');
    if (needsOf(recipe).includes('headHessians'))
      left.push('statistics of attention heads are not measured: they add to this');
    return left;
  }
}

const text = (seconds: number): string => `${seconds.toPrecision(2)} s`;

/** Passes over a window, an odd number, and the seconds after which no further two are begun. */
const [mostPasses, enoughPassing] = [5, 1];

/** The median: one pass may fall into another program's work, and the first one pays for cold caches. */
async function medianSeconds(work: () => Promise<unknown>): Promise<number> {
  const seconds = [await secondsOf(work)];
  while (seconds.length < mostPasses && seconds.reduce((sum, one) => sum + one, 0) < enoughPassing)
    seconds.push(await secondsOf(work), await secondsOf(work));
  return seconds.sort((a, b) => a - b)[(seconds.length - 1) / 2]!;
}

async function secondsOf(work: () => Promise<unknown>): Promise<number> {
  const begin = performance.now();
  await work();
  return (performance.now() - begin) / 1000;
}
