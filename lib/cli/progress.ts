import { SingleBar } from 'cli-progress';
import type { ComparisonProgress } from '../comparison/index.js';
import type { EvaluationProgress } from '../evaluation/index.js';
import { bytesText } from '../formats/index.js';
import type { Progress } from '../pipeline/index.js';
import { JobProgress } from './job-progress.js';
import { renderPlan } from './plan.js';
import { progressLine, type Step } from './progress-line.js';
import { counted, duration } from './table.js';

type Event = Progress | EvaluationProgress | ComparisonProgress;

/** Milliseconds between two lines where stderr is no terminal. */
const lineInterval = 2000;

export interface ProgressReporter {
  report(event: Event): void;
  /** Leaves the terminal as it was. */
  stop(): void;
}

/**
 * Shows progress on stderr: the plan of a job, then a bar on a terminal, else a line when a layer is done or some seconds have
 * passed. What is done never becomes less.
 */
export function progressReporter(): ProgressReporter {
  return process.stderr.isTTY ? bar(new Follower()) : lines(new Follower());
}

function bar(follower: Follower): ProgressReporter {
  const view = new SingleBar({
    format: (_options, _params, { step }: { step: Step }) =>
      progressLine(step, process.memoryUsage.rss(), process.stderr.columns || 80),
    stream: process.stderr,
    clearOnComplete: true,
    hideCursor: true,
  });
  let started = false;
  return {
    report(event) {
      const step = follower.follow(event);
      if (!('run' in event) && event.phase === 'plan') {
        if (started) view.stop();
        started = false;
        process.stderr.write(`${renderPlan(event.plan)}\n`);
      }
      if (!started) view.start(1000, 0, { step });
      started = true;
      view.update(Math.floor(1000 * step.share), { step });
    },
    stop() {
      if (started) view.stop();
    },
  };
}

function lines(follower: Follower): ProgressReporter {
  let last = Date.now();
  return {
    report(event) {
      const step = follower.follow(event);
      const now = Date.now();
      const { phase } = 'run' in event ? event.step : event;
      if (!('run' in event) && event.phase === 'plan') process.stderr.write(`${renderPlan(event.plan)}\n`);
      if (phase !== 'quantize' && now - last < lineInterval) return;
      last = now;
      process.stderr.write(
        `${Math.floor(100 * step.share)
          .toString()
          .padStart(3)} % ${step.what}${restOf(step)}\n`,
      );
    },
    stop() {},
  };
}

/** How long it will take, and the memory that the process has now. */
const restOf = ({ secondsLeft }: Step): string =>
  `${secondsLeft === null ? '' : `, ${duration(secondsLeft)} left`}, ${bytesText(process.memoryUsage.rss())}`;

/** Follows one command: a job, an evaluation, or the jobs and evaluations of a comparison. */
class Follower {
  #job = new JobProgress();
  #run = 0;
  #share = 0;

  follow(event: Event): Step {
    if (!('run' in event)) return this.#step(event, event.phase === 'evaluate' ? 0 : 1);
    if (event.run !== this.#run) this.#job = new JobProgress();
    this.#run = event.run;
    const { what, share } = this.#step(event.step, event.run ? 0.8 : 0);
    this.#share = Math.max(this.#share, (event.run + share) / (event.runs + 1));
    return { what: `${event.what}: ${what}`, share: this.#share, secondsLeft: null };
  }

  /** @param ofJob the share of a job where an evaluation follows it */
  #step(event: Progress | EvaluationProgress, ofJob: number): Step {
    const what = describe(event);
    if (event.phase === 'evaluate')
      return { what, share: ofJob + ((1 - ofJob) * event.done) / event.total, secondsLeft: null };
    const { share, secondsLeft } = this.#job.follow(event);
    return { what, share: ofJob * share, secondsLeft };
  }
}

/** What an event says to a person. */
function describe(event: Progress | EvaluationProgress): string {
  switch (event.phase) {
    case 'encode':
      return `encoding the calibration text, ${Math.floor((100 * event.characters) / event.totalCharacters)} %`;
    case 'plan':
      return 'planned';
    case 'preflight':
      return `checking ${event.layer}`;
    case 'hash':
      return `hashing ${event.file}`;
    case 'calibrate':
      return `calibrating on ${counted(event.windows, 'window')} of ${event.sequenceLength} tokens`;
    case 'embed':
      return 'embedding the calibration text';
    case 'target':
      return `${blockOf(event)}: running the original block`;
    case 'collect':
      return `${blockOf(event)}: collecting Hessians`;
    case 'allocate':
      return `${blockOf(event)}: measuring widths`;
    case 'transform':
      return `${blockOf(event)}: ${event.method}`;
    case 'quantize':
      return `${blockOf(event)}: ${layerLine(event)}`;
    case 'finetune':
      return `${blockOf(event)}: ${event.method}, epoch ${event.epoch} of ${event.epochs}, loss ${event.loss.toExponential(2)}`;
    case 'advance':
      return `${blockOf(event)}: feeding the next block`;
    case 'resume':
      return `going on behind ${blockOf(event)}`;
    case 'journal':
      return `${blockOf(event)}: on the disk`;
    case 'finish':
      return 'bringing the checkpoint to disk';
    case 'evaluate':
      return `evaluating, ${event.done} of ${event.total} tokens`;
  }
}

function layerLine({ layer, relativeError, damping, warnings }: Extract<Progress, { phase: 'quantize' }>): string {
  const parts = [`${layer}: relative error ${relativeError.toExponential(2)}`];
  if (damping !== null) parts.push(`damping ${damping}`);
  return [...parts, ...new Set(warnings)].join(', ');
}

const blockOf = ({ block, blocks }: { block: number; blocks: number }) => `block ${block} of ${blocks}`;
