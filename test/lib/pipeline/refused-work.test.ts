import { cpSync, mkdirSync, readFileSync, renameSync, rmSync, symlinkSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { type Progress, planQuantization, type QuantizationJob, quantizeModel } from '../../../lib/pipeline/index.js';
import { words, writeRandomModel } from './random-model.js';
import {
  beginOf,
  blocks,
  calibration,
  editJournal,
  flip,
  gptq,
  jobIn,
  model,
  refused,
  resumes,
  rtn,
  scratch,
  stateOf,
  unfinished,
} from './unfinished-jobs.js';

describe('the work of another job is refused by what differs', () => {
  const changes: [string, Partial<QuantizationJob>, string | number, string | number][] = [
    ['recipe.grid.bits', { recipe: { ...gptq, bits: 2 } }, '3', '2'],
    ['recipe.solver.method', { recipe: { ...gptq, method: 'leanquant' } }, '"gptq"', '"leanquant"'],
    ['calibration.seed', { calibration: { ...calibration, seed: 1 } }, '0', '1'],
    ['calibration.samples', { calibration: { ...calibration, samples: 3 } }, '4', '3'],
    ['calibration.heldOut', { calibration: { ...calibration, heldOut: 1 } }, '0', '1'],
    ['calibration.sequenceLength', { calibration: { ...calibration, sequenceLength: 23 } }, '24', '23'],
    [
      'calibration.sha256',
      { calibration: { ...calibration, texts: [words(3000, 4)] } },
      '[0-9a-f]{16}…',
      '[0-9a-f]{16}…',
    ],
    ['calibration', { recipe: rtn, calibration: undefined }, '\\{"sha256.*', 'none'],
    ['shardBytes', { shardBytes: 30_000 }, '5000000000', '30000'],
  ];
  test('recipe, calibration, shard size', async () => {
    const { job, work } = unfinished();
    for (const [what, change, found, expected] of changes) {
      const line = new RegExp(`\n {2}${what}: unfinished work has ${found}, this job has ${expected}[;.]\n`);
      const error = {
        code: 'LUTRA_E_RESUME_MISMATCH',
        where: join(work, 'journal.json'),
        message: expect.stringMatching(line),
        items: expect.arrayContaining([expect.stringMatching(`^${what}: `)]),
      };
      expect(await refused({ ...job, ...change }, work), what).toMatchObject(error);
      await expect(planQuantization({ ...job, ...change }), what).rejects.toMatchObject(error);
    }
    await resumes({ ...job, threads: 1, strict: true }, 2);
  });

  test('input files', async () => {
    const other = join(scratch, 'other');
    cpSync(model, other, { recursive: true });
    const { job: same, work } = unfinished();
    const job = { ...same, model: other };
    writeFileSync(join(other, 'LICENSE'), 'new');
    expect(await refused(job, work)).toMatchObject({
      code: 'LUTRA_E_RESUME_MISMATCH',
      items: [expect.stringMatching(/^inputs\.LICENSE: unfinished work has none, this job has [0-9a-f]{16}…$/)],
    });
    rmSync(join(other, 'LICENSE'));
    rmSync(join(other, 'model.safetensors'));
    await writeRandomModel(other, { config: { num_hidden_layers: blocks }, seed: 2 });
    expect(await refused(job, work)).toMatchObject({
      items: [expect.stringMatching(/^inputs\.model\.safetensors: /)],
    });
    // The same files in another place are the same input.
    await resumes({ ...job, model }, 2);
  });

  test.each([
    ['version', '9.9.9'],
    ['isa', 'abacus'],
    ['formatVersion', 2],
  ])('lutra.%s', async (part, value) => {
    const { job, work } = unfinished();
    await editJournal(work, (journal) => {
      journal.identity.lutra[part] = value;
      // Another version may have journals of another form.
      journal.blocks = 'elsewhere';
    });
    expect(await refused(job, work)).toMatchObject({
      code: 'LUTRA_E_RESUME_MISMATCH',
      items: [expect.stringMatching(`^lutra.${part}: unfinished work has ${JSON.stringify(value)}, this job has `)],
    });
  });
});

describe('a plan', () => {
  test('tells of the work that the job would go on with, or remove', async () => {
    const { job, work } = unfinished();
    const before = stateOf(work);
    const told = { directory: work, blocks: 2, published: false };
    expect((await planQuantization(jobIn(join(scratch, 'nowhere')))).unfinished).toBeNull();
    expect((await planQuantization(job)).unfinished).toEqual({ ...told, takenOver: true });
    expect((await planQuantization({ ...job, resume: false })).unfinished).toEqual({ ...told, takenOver: false });
    expect(stateOf(work)).toEqual(before);
    const plans: unknown[] = [];
    const onProgress = (event: Progress) => event.phase === 'plan' && plans.push(event.plan.unfinished);
    expect(await quantizeModel({ ...job, onProgress })).toMatchObject({ resumedBlocks: 2 });
    expect(plans).toEqual([{ ...told, takenOver: true }]);
  });

  test('estimates the time of the rest', async () => {
    const { time } = await planQuantization(unfinished().job, { measureTime: true });
    expect(time?.basis).toContain('without 2 finished blocks');
  });

  test('refuses what the job refuses: damage, and an output that may not be replaced', async () => {
    const damaged = unfinished();
    truncateSync(join(damaged.work, 'journal.json'), 1000);
    await expect(planQuantization(damaged.job)).rejects.toMatchObject({ code: 'LUTRA_E_RESUME_DAMAGED' });
    const afresh = await planQuantization({ ...damaged.job, resume: false });
    expect(afresh.unfinished).toMatchObject({ blocks: null, takenOver: false });
    const { job } = unfinished();
    mkdirSync(job.out);
    await expect(planQuantization(job)).rejects.toMatchObject({ code: 'LUTRA_E_EXISTS', where: job.out });
    expect((await planQuantization({ ...job, overwrite: true })).unfinished).toMatchObject({ takenOver: true });
  });
});

describe('work that is not as it was left is refused', () => {
  const damages: [string, string, (path: string, work: string) => void | Promise<void>][] = [
    ['a changed number of the journal', 'journal.json', (path) => edit(path, '"tokens":96', '"tokens":97')],
    ['half a journal', 'journal.json', (path) => truncateSync(path, 1000)],
    ['an empty journal', 'journal.json', (path) => truncateSync(path, 0)],
    ['a journal of something else', 'journal.json', (path) => writeFileSync(path, '{"crc32c": 0, "journal": []}')],
    [
      'a journal without its blocks, checksum and all',
      'journal.json',
      (_, work) => editJournal(work, (journal) => delete journal.blocks),
    ],
    ['no file of weights', 'checkpoint/model.safetensors', (path) => rmSync(path)],
    ['a file of weights that is cut', 'checkpoint/model.safetensors', (path) => truncateSync(path, 4000)],
    ['a changed header', 'checkpoint/model.safetensors', (path) => flip(path, 100)],
    [
      'a changed bit of a finished tensor',
      'checkpoint/model.safetensors',
      (path, work) => flip(path, beginOf(work, 'model.layers.1.mlp.down_proj.codes')),
    ],
    ['a changed bit of the activations', 'activations.0.scratch', (path) => flip(path, 4 * 24 * 64 + 8)],
    ['activations that are cut', 'activations.0.scratch', (path) => truncateSync(path, 4 * 24 * 64)],
    ['no activations', 'activations.0.scratch', (path) => rmSync(path)],
  ];
  const edit = (path: string, from: string, to: string) => {
    const text = readFileSync(path, 'utf8');
    expect(text).toContain(from);
    writeFileSync(path, text.replace(from, to));
  };

  test.each(damages)('%s', async (_, name, damage) => {
    const { job, work } = unfinished();
    await damage(join(work, name), work);
    expect(await refused(job, work)).toMatchObject({
      code: 'LUTRA_E_RESUME_DAMAGED',
      where: expect.stringContaining(join(work, name)),
    });
    await resumes({ ...job, resume: false }, 0);
  });

  test.each(['journal.json', 'checkpoint/model.safetensors', 'activations.0.scratch'])(
    'an error of the system at %s says nothing about the work',
    async (name) => {
      const { job, work } = unfinished();
      const path = join(work, name);
      renameSync(path, `${work}.aside`);
      symlinkSync(path, path);
      const error = await quantizeModel(job).catch((reason: unknown) => reason);
      expect(error).toMatchObject({ code: 'LUTRA_E_IO', where: path, found: 'ELOOP' });
      expect((error as Error).message).not.toContain('afresh');
      renameSync(`${work}.aside`, path);
      await resumes(job, 2);
    },
  );

  test('what no block has finished may be anything', async () => {
    const { job, work } = unfinished();
    flip(join(work, 'activations.1.scratch'), 0);
    writeFileSync(join(work, 'journal.json.new'), 'half');
    writeFileSync(join(work, 'checkpoint', 'config.json'), 'half');
    mkdirSync(join(work, 'checkpoint', 'folder'));
    writeFileSync(join(work, 'targets.scratch'), 'old');
    await resumes(job, 2);
  });
});
