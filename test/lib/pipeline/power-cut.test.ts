import { mkdirSync, readdirSync, renameSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { type Progress, quantizeModel } from '../../../lib/pipeline/index.js';
import { LossyDisk } from '../../lossy-disk.js';
import { filesOf, scratchDirectory, words, writeRandomModel } from './random-model.js';

const scratch = scratchDirectory();

test.skipIf(process.platform !== 'linux')(
  'a power cut on a disk that keeps no more than it must loses one block',
  async () => {
    const model = await writeRandomModel(join(scratch, 'model'), { config: { num_hidden_layers: 3 } });
    const calibration = { texts: [words(3000)], samples: 2, sequenceLength: 24, heldOut: 1 };
    const job = { model, calibration, recipe: { method: 'gptq', bits: 3, groupSize: 32 }, shardBytes: 20_000 };
    const parent = join(scratch, 'whole');
    mkdirSync(parent);
    // In directories that the job makes: their names must be on the disk, too.
    const outIn = (directory: string) => join(directory, 'made', 'deep', 'out');
    const cuts: { at: string; directory: string; finished: number }[] = [];
    {
      using disk = await LossyDisk.watch();
      let finished = 0;
      const onProgress = (event: Progress) => {
        if (event.phase === 'journal') finished = event.block;
        if (finished === 0) return;
        const at = 'block' in event ? `${event.phase} ${event.block}` : event.phase;
        if (cuts.at(-1)?.at === at) return;
        const directory = join(scratch, `cut-${cuts.length}`);
        disk.leave(parent, directory);
        cuts.push({ at, directory, finished });
      };
      await quantizeModel({ ...job, out: outIn(parent), onProgress });
      disk.leave(parent, join(scratch, 'end'));
      expect(filesOf(outIn(join(scratch, 'end')))).toEqual(filesOf(outIn(parent)));
    }
    const later = (block: number) => [`collect ${block}`, `quantize ${block}`];
    const blocks = ['journal 1', ...later(2), 'advance 2', 'journal 2', ...later(3), 'journal 3'];
    expect(cuts.map(({ at }) => at)).toEqual([...blocks, 'finish']);
    for (const { at, directory, finished } of cuts) {
      const work = `${outIn(directory)}.partial`;
      // The machine starts anew: the process is no more.
      for (const name of readdirSync(work))
        if (name.startsWith('.lutra-job-')) renameSync(join(work, name), join(work, '.lutra-job-released'));
      const result = await quantizeModel({ ...job, out: outIn(directory) });
      expect(result.resumedBlocks, at).toBe(finished);
      expect(filesOf(result.out), at).toEqual(filesOf(outIn(parent)));
    }
  },
);
