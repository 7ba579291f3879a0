import type { Progress } from '../pipeline/index.js';

/** Where a job is as a whole. */
export interface JobPosition {
  /** Share of the job that is done, from 0 to 1; never less than it was. */
  share: number;
  /** Seconds that the job will still take; null before a block is through. */
  secondsLeft: number | null;
}

/** Where the blocks begin and end in the share of a job; before them lie the weights' check, the hashes and the embedding. */
const [blocksBegin, blocksEnd] = [0.05, 0.99];
/** Where widths are allocated, that comes first, and takes about as long as a third of the rest. */
const allocationEnd = blocksBegin + 0.25 * (1 - blocksBegin);

/** Follows one quantization job by its events. */
export class JobProgress {
  #share = 0;
  #blocks: { first: number; begin: number; current: number; since: number } | null = null;
  /** Widths are chosen in a pass over all blocks of its own. */
  #allocates = false;
  #measured = false;

  /** @param now seconds of a clock that does not stand still */
  constructor(private readonly now: () => number = () => performance.now() / 1000) {}

  follow(event: Progress): JobPosition {
    if (event.phase === 'plan') this.#allocates = event.plan.recipe.allocation !== null;
    this.#enter(event);
    this.#share = Math.max(this.#share, this.#shareOf(event));
    return { share: this.#share, secondsLeft: this.#secondsLeft(event) };
  }

  /** Takes the time at the beginning of every block; the pass that measures widths is not one of quantizing. */
  #enter(event: Progress): void {
    if (!('block' in event) || event.phase === 'resume') return;
    const measuring = event.phase === 'allocate';
    if (measuring !== this.#measured) this.#blocks = null;
    this.#measured = measuring;
    if (this.#blocks?.current === event.block) return;
    const now = this.now();
    this.#blocks = { first: event.block, begin: now, ...this.#blocks, current: event.block, since: now };
  }

  #secondsLeft(event: Progress): number | null {
    const blocks = this.#blocks;
    if (
      !('block' in event) ||
      !blocks ||
      event.phase === 'allocate' ||
      event.phase === 'resume' ||
      blocks.current === blocks.first
    )
      return null;
    const aBlock = (blocks.since - blocks.begin) / (blocks.current - blocks.first);
    const left = aBlock * (event.blocks - blocks.current + 1) - (this.now() - blocks.since);
    return Math.max(0, left);
  }

  #shareOf(event: Progress): number {
    switch (event.phase) {
      case 'encode':
      case 'plan':
      case 'calibrate':
        return 0;
      case 'preflight':
        return (0.6 * blocksBegin * event.index) / event.layers;
      case 'hash':
        return blocksBegin * (0.6 + (0.3 * event.bytes) / Math.max(1, event.totalBytes));
      case 'embed':
        return blocksBegin * (0.9 + (0.1 * event.window) / event.windows);
      case 'allocate':
        return between(blocksBegin, allocationEnd, ofAllocation(event));
      case 'resume':
        return between(blocksBegin, blocksEnd, event.block / event.blocks);
      case 'finish':
        return blocksEnd;
      default: {
        const begin = this.#allocates ? allocationEnd : blocksBegin;
        return between(begin, blocksEnd, (event.block - 1 + ofBlock(event)) / event.blocks);
      }
    }
  }
}

const between = (begin: number, end: number, share: number): number => begin + (end - begin) * share;

type OfBlock = Extract<Progress, { block: number }>;
type Allocating = Extract<OfBlock, { phase: 'allocate' }>;

/** The share of the pass that measures widths: forwards through all blocks, then backwards, which takes twice as long. */
function ofAllocation({ pass, block, blocks, window, windows }: Allocating): number {
  const within = window / windows;
  if (pass === 'forward') return (block - 1 + within) / blocks / 3;
  return (1 + (2 * (blocks - block + within)) / blocks) / 3;
}

/** The share of its block that is done. */
function ofBlock(event: Exclude<OfBlock, { phase: 'resume' | 'allocate' }>): number {
  switch (event.phase) {
    case 'target':
      return (0.2 * event.window) / event.windows;
    case 'collect':
      return 0.2 + (0.2 * event.window) / event.windows;
    case 'transform':
      return 0.4;
    case 'quantize': {
      const layers = event.layers / event.blocks;
      return 0.4 + (0.4 * (event.index - (event.block - 1) * layers)) / layers;
    }
    case 'finetune':
      return 0.8 + (0.1 * event.epoch) / event.epochs;
    case 'advance':
      return 0.9 + (0.1 * event.window) / event.windows;
    case 'journal':
      return 1;
  }
}
