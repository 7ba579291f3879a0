import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { beforeAll, describe, expect, test } from 'vitest';
import { addon } from '../../../lib/native/index.js';
import {
  type Progress,
  type QuantizationJob,
  type QuantizationResult,
  quantizeModel,
} from '../../../lib/pipeline/index.js';
import { memoryAtRest } from '../../memory-at-rest.js';
import { filesOf, scratchDirectory, words, writeRandomModel } from './random-model.js';

const scratch = scratchDirectory();
const model = join(scratch, 'model');
const blocks = 3;
const grid = { bits: 3, groupSize: 32 };
const calibration = { texts: [words(3000)], samples: 4, sequenceLength: 24 };

beforeAll(() => writeRandomModel(model, { config: { num_hidden_layers: blocks } }));

/** Ends a run at the first event of every phase of every block at which none has ended yet. */
class Interruptions {
  readonly seen = new Set<string>();
  /** Layers by the blocks that were recorded when they were solved: none may be solved again behind its block's record. */
  readonly #recorded = new Set<number>();

  readonly onProgress = (event: Progress) => {
    const block = 'block' in event ? event.block : 0;
    if (event.phase === 'quantize') expect(this.#recorded).not.toContain(block);
    if (event.phase === 'journal') this.#recorded.add(block);
    // What comes before the first block leaves nothing behind: failures.test.ts.
    if (block === 0 && event.phase !== 'finish') return;
    const point = `${event.phase} ${block}`;
    if (event.phase === 'resume' || this.seen.has(point)) return;
    this.seen.add(point);
    throw new Error(point);
  };
}

/** Runs the job until a run ends well, each ended somewhere else. */
async function throughInterruptions(job: QuantizationJob): Promise<{ result: QuantizationResult; points: string[] }> {
  const interruptions = new Interruptions();
  for (;;) {
    const result = await quantizeModel({ ...job, onProgress: interruptions.onProgress }).catch((error: Error) => error);
    const points = [...interruptions.seen];
    if (!(result instanceof Error)) return { result, points };
    expect(result.message).toBe(points.at(-1));
    expect(existsSync(job.out)).toBe(false);
  }
}

describe('a job that is interrupted in every phase of every block writes the same bytes as one that is not', () => {
  const jobs: [string, object][] = [
    ['rtn', { recipe: { method: 'rtn', ...grid } }],
    ['gptq', { calibration }],
    ['gptq in small shards', { calibration, shardBytes: 20_000 }],
    ['gptq, windows held out', { calibration: { ...calibration, heldOut: 2 } }],
    ['rtn, windows held out', { recipe: { method: 'rtn', ...grid }, calibration: { ...calibration, heldOut: 2 } }],
    [
      'decoupleq with its block stage',
      {
        recipe: { solver: { method: 'decoupleq' }, grid, finetune: [{ method: 'decoupleq-block', epochs: 1 }] },
        calibration,
      },
    ],
    ['awq', { recipe: { solver: { method: 'rtn' }, grid, transforms: [{ method: 'awq' }] }, calibration }],
    ['hadamard', { recipe: { solver: { method: 'gptq' }, grid, transforms: [{ method: 'hadamard' }] }, calibration }],
    [
      'allocated widths',
      {
        recipe: {
          solver: { method: 'gptq' },
          grid,
          allocation: { bitsPerWeight: 3.75, widths: [2, 3, 4] },
        },
        calibration,
      },
    ],
  ];

  test.each(jobs)('%s', async (name, change) => {
    const memory = await memoryAtRest();
    const parent = join(scratch, name);
    const job = { model, out: join(parent, 'whole'), recipe: { method: 'gptq', ...grid }, ...change };
    const whole = await quantizeModel(job);
    expect(whole.resumedBlocks).toBe(0);
    const { result, points } = await throughInterruptions({ ...job, out: join(parent, 'resumed') });
    for (const block of [1, 2, 3]) expect(points).toContain(`quantize ${block}`);
    expect(points).toContain('finish 0');
    expect(filesOf(result.out)).toEqual(filesOf(whole.out));
    expect(readdirSync(parent).sort()).toEqual(['resumed', 'whole']);
    expect(result.resumedBlocks).toBe(blocks);
    const same = ({ layers, transforms, finetune }: QuantizationResult) => ({ layers, transforms, finetune });
    expect(same(result)).toEqual(same(whole));
    expect(addon().nativeMemory()).toBe(memory);
  });
});
