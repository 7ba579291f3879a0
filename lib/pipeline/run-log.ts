import type { Progress, ProgressPhase } from './progress.js';

/** What run-log.json tells of a run besides its seconds and its peak memory: where both went. */
export interface RunLogParts {
  /** The plan's estimate of the peak memory. */
  estimatedPeakBytes: number | null;
  /** Seconds by phase, until its last event came. */
  phases: Partial<Record<ProgressPhase, number>>;
  blocks: {
    /** From 0. */
    block: number;
    /** From the end of the block before. */
    seconds: number;
    /** Largest resident memory of the process until then. */
    peakRssBytes: number;
  }[];
  /** Seconds of solving, statistics and packing not counted. */
  layers: { name: string; seconds: number }[];
}

/** Follows a run by its events. */
export class RunLog {
  readonly #parts: RunLogParts = { estimatedPeakBytes: null, phases: {}, blocks: [], layers: [] };
  #last = performance.now();
  /** The block that is worked on, and since when. */
  #block: { number: number; since: number } | null = null;

  follow(event: Progress): void {
    const now = performance.now();
    const { phase } = event;
    this.#parts.phases[phase] = (this.#parts.phases[phase] ?? 0) + (now - this.#last) / 1000;
    if (phase === 'plan') this.#parts.estimatedPeakBytes = event.plan.memory.peakBytes;
    if (phase === 'quantize') this.#parts.layers.push({ name: event.layer, seconds: event.seconds });
    if (phase === 'finish') this.#end(now);
    else if ('block' in event && phase !== 'allocate' && phase !== 'resume' && event.block !== this.#block?.number) {
      // Its first event comes when a piece of it is done already.
      this.#end(this.#last);
      this.#block = { number: event.block, since: this.#last };
    }
    this.#last = now;
  }

  #end(now: number): void {
    if (!this.#block) return;
    const { number, since } = this.#block;
    const peakRssBytes = process.resourceUsage().maxRSS * 1024;
    this.#parts.blocks.push({ block: number - 1, seconds: (now - since) / 1000, peakRssBytes });
    this.#block = null;
  }

  get parts(): RunLogParts {
    return this.#parts;
  }
}
