import { SingleBar } from 'cli-progress';
import type { ComparisonProgress } from '../comparison/index.js';
import type { EvaluationProgress } from '../evaluation/index.js';
import type { Progress } from '../pipeline/index.js';
import { counted } from './table.js';

type Event = Progress | EvaluationProgress | ComparisonProgress;

/** Milliseconds between two lines where stderr is no terminal. */
const lineInterval = 2000;

/**
 * Shows progress on stderr: a bar on a terminal, else a line when a layer is done or some seconds have passed.
 * `stop` leaves the terminal as it was.
 */
export function progressReporter(): { report: (event: Event) => void; stop: () => void } {
  return process.stderr.isTTY ? bar() : lines();
}

function bar(): { report: (event: Event) => void; stop: () => void } {
  const view = new SingleBar({
    format: '{bar} {percentage}% {what}',
    stream: process.stderr,
    clearOnComplete: true,
    hideCursor: true,
  });
  let started = false;
  return {
    report(event) {
      const { what, share } = describe(event);
      if (!started) view.start(1000, 0, { what });
      started = true;
      view.update(Math.round(1000 * share), { what });
    },
    stop() {
      if (started) view.stop();
    },
  };
}

function lines(): { report: (event: Event) => void; stop: () => void } {
  let last = Date.now();
  return {
    report(event) {
      const now = Date.now();
      const { phase } = 'run' in event ? event.step : event;
      if (phase !== 'quantize' && now - last < lineInterval) return;
      last = now;
      const { what, share } = describe(event);
      process.stderr.write(`${(100 * share).toFixed(0).padStart(3)} % ${what}\n`);
    },
    stop() {},
  };
}

/** What an event says to a person, and the share of its phase that is done. */
function describe(event: Event): { what: string; share: number } {
  if ('run' in event) {
    const { what, share } = describe(event.step);
    return { what: `${event.what}: ${what}`, share: (Math.max(0, event.run - 1) + share) / event.runs };
  }
  switch (event.phase) {
    case 'preflight':
      return { what: `checking ${event.layer}`, share: event.index / event.layers };
    case 'hash':
      return { what: `hashing ${event.file}`, share: event.totalBytes ? event.bytes / event.totalBytes : 1 };
    case 'resume':
      return { what: `going on behind ${blockOf(event)}`, share: shareOf(event, 1) };
    case 'journal':
      return { what: `${blockOf(event)}: on the disk`, share: shareOf(event, 1) };
    case 'calibrate':
      return { what: `calibrating on ${counted(event.windows, 'window')} of ${event.sequenceLength} tokens`, share: 0 };
    case 'embed':
      return { what: 'embedding the calibration text', share: event.window / event.windows };
    case 'target':
      return { what: `${blockOf(event)}: running the original block`, share: shareOf(event, 0) };
    case 'collect':
      return {
        what: `${blockOf(event)}: collecting Hessians`,
        share: shareOf(event, event.window / event.windows / 2),
      };
    case 'allocate':
      return {
        what: `${blockOf(event)}: measuring widths`,
        share: shareOf(event, event.window / event.windows),
      };
    case 'transform':
      return { what: `${blockOf(event)}: ${event.method}`, share: shareOf(event, 0.5) };
    case 'quantize':
      return {
        what: `${event.layer}: relative error ${event.relativeError.toExponential(2)}`,
        share: event.index / event.layers,
      };
    case 'finetune':
      return {
        what: `${blockOf(event)}: ${event.method}, epoch ${event.epoch} of ${event.epochs}, loss ${event.loss.toExponential(2)}`,
        share: shareOf(event, (1 + event.epoch / event.epochs) / 2),
      };
    case 'advance':
      return { what: `${blockOf(event)}: feeding the next block`, share: shareOf(event, event.window / event.windows) };
    case 'finish':
      return { what: 'bringing the checkpoint to disk', share: 1 };
    case 'evaluate':
      return { what: `evaluating, ${event.done} of ${event.total} tokens`, share: event.done / event.total };
  }
}

const blockOf = ({ block, blocks }: { block: number; blocks: number }) => `block ${block} of ${blocks}`;
const shareOf = ({ block, blocks }: { block: number; blocks: number }, within: number) => (block - 1 + within) / blocks;
