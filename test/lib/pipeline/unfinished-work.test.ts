import { cpSync, existsSync, mkdirSync, readdirSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { beforeAll, describe, expect, test } from 'vitest';
import { type Progress, planQuantization, type QuantizationJob, quantizeModel } from '../../../lib/pipeline/index.js';
import { mountSmallDisk } from '../../small-disk.js';
import { filesOf, writeRandomModel } from './random-model.js';
import {
  blocks,
  editJournal,
  gptq,
  jobIn,
  resumes,
  scratch,
  stateOf,
  stop,
  stopAt,
  unfinished,
  unpublished,
  whole,
} from './unfinished-jobs.js';

describe('who has the work', () => {
  test('of two runs at once, one goes on', async () => {
    const { job } = unfinished();
    const runs = await Promise.allSettled([quantizeModel(job), quantizeModel(job), quantizeModel(job)]);
    const failures = runs.flatMap((run) => (run.status === 'rejected' ? [run.reason] : []));
    expect(failures.map(({ code }) => code)).toEqual(['LUTRA_E_EXISTS', 'LUTRA_E_EXISTS']);
    expect(filesOf(job.out)).toEqual(whole);
    expect(readdirSync(dirname(job.out))).toEqual(['out']);
  });

  test('it stays where the output may not be replaced, and is gone on with where it may', async () => {
    const { job, work } = unfinished();
    await quantizeModel(jobIn(join(dirname(job.out), 'older'), { recipe: { ...gptq, bits: 2 } }));
    renameSync(join(dirname(job.out), 'older', 'out'), job.out);
    rmSync(join(dirname(job.out), 'older'), { recursive: true });
    await expect(quantizeModel(job)).rejects.toMatchObject({ code: 'LUTRA_E_EXISTS', where: job.out });
    expect(existsSync(join(work, 'journal.json'))).toBe(true);
    await resumes({ ...job, overwrite: true }, 2);
  });

  test('it is removed by a run that starts afresh', async () => {
    const { job } = unfinished();
    await resumes({ ...job, resume: false }, 0);
    const again = unfinished();
    const other = { ...again.job, recipe: { ...gptq, bits: 2 }, resume: false };
    expect(await quantizeModel(other)).toMatchObject({ resumedBlocks: 0 });
    expect(readdirSync(dirname(other.out))).toEqual(['out']);
  });
});

describe('a run that was killed while its output took its name', () => {
  /** The work of a job that is through, as it is before it is removed. */
  async function published(): Promise<{ job: QuantizationJob; work: string }> {
    const { job, work } = unpublished();
    cpSync(work, `${work}.copy`, { recursive: true });
    await quantizeModel(job);
    rmSync(join(`${work}.copy`, 'checkpoint'), { recursive: true });
    renameSync(`${work}.copy`, work);
    return { job, work };
  }

  test('is completed without another look at the model', async () => {
    const { job } = await published();
    const before = stateOf(job.out);
    const seen = new Set<string>();
    await resumes({ ...job, onProgress: ({ phase }) => seen.add(phase) }, blocks);
    expect([...seen]).toEqual(['encode', 'plan', 'calibrate', 'hash']);
    expect(stateOf(job.out)).toEqual(before);
  });

  test('is not completed by a strict run where it has warnings', async () => {
    const { job, work } = await published();
    await editJournal(work, ({ blocks: [block] }) => {
      block.layers[2].warnings = [{ kind: 'scaleDtype', message: 'scales are bf16' }];
    });
    const refused = { code: 'LUTRA_E_STRICT', found: 'scaleDtype', where: expect.stringContaining('model.layers.0') };
    await expect(quantizeModel({ ...job, strict: true })).rejects.toMatchObject(refused);
    expect(existsSync(join(work, 'journal.json'))).toBe(true);
  });

  test('is not taken for one whose output is another', async () => {
    const { job, work } = await published();
    const { job: other } = unfinished();
    await quantizeModel({ ...other, recipe: { ...gptq, bits: 2 }, resume: false });
    cpSync(join(other.out, 'manifest.json'), join(job.out, 'manifest.json'));
    const damaged = { code: 'LUTRA_E_RESUME_DAMAGED', where: join(job.out, 'manifest.json') };
    await expect(quantizeModel(job)).rejects.toMatchObject(damaged);
    await resumes({ ...job, resume: false, overwrite: true }, 0);
    expect(existsSync(work)).toBe(false);
  });

  test('is not begun afresh in silence where the output is gone, nor where the growing one is', async () => {
    for (const gone of [async () => published(), async () => unfinished()]) {
      const { job, work } = await gone();
      for (const path of [job.out, join(work, 'checkpoint')]) rmSync(path, { recursive: true, force: true });
      const damaged = { code: 'LUTRA_E_RESUME_DAMAGED', where: expect.stringContaining('checkpoint') };
      await expect(quantizeModel(job)).rejects.toMatchObject(damaged);
      expect(existsSync(join(work, 'journal.json'))).toBe(true);
      await resumes({ ...job, resume: false }, 0);
    }
  });

  test('whose mark is lost says how it is given back', async () => {
    const { job, work } = unfinished();
    const [mark] = readdirSync(work).filter((name) => name.startsWith('.lutra-job-'));
    rmSync(join(work, mark!));
    const hint = expect.stringContaining('make an empty file .lutra-job-released');
    await expect(quantizeModel(job)).rejects.toMatchObject({ code: 'LUTRA_E_EXISTS', hint });
    writeFileSync(join(work, '.lutra-job-released'), '');
    await resumes(job, blocks - 1);
  });

  test('between the old output and the new one, completes the new one or brings the old one back', async () => {
    for (const resume of [true, false]) {
      const { job, work } = unpublished();
      mkdirSync(join(work, 'replaced'));
      writeFileSync(join(work, 'replaced', 'old'), '');
      if (resume) await resumes(job, blocks);
      else {
        await expect(quantizeModel({ ...job, resume })).rejects.toMatchObject({ code: 'LUTRA_E_EXISTS' });
        expect(readdirSync(job.out)).toEqual(['old']);
        expect(existsSync(work)).toBe(false);
      }
    }
  });
});

describe('what a run says that ends early', () => {
  const silent = join(scratch, 'silent');
  beforeAll(async () => {
    const edit = (name: string, values: Float32Array) =>
      name === 'model.layers.1.input_layernorm.weight' && values.fill(0, 9, 10);
    await writeRandomModel(silent, { config: { num_hidden_layers: blocks }, edit });
  });

  test('an error keeps its code and its own hint, and says how to go on', async () => {
    const job = jobIn(join(scratch, 'hints'), { model: silent });
    const error = { code: 'LUTRA_E_STRICT', where: 'model.layers.1.self_attn.q_proj.weight', found: 'deadColumns' };
    const own = 'Without `strict` the job goes on and records it.';
    const hint = `${own} 1 of 3 blocks are kept: the same job without it goes on with them.`;
    const message = expect.stringMatching(new RegExp(`^${error.where}: .*, found deadColumns\\. ${hint}$`));
    await expect(quantizeModel({ ...job, strict: true, resumeHint: 'press the button' })).rejects.toMatchObject({
      ...{ ...error, hint, message },
      stack: expect.stringContaining(hint),
    });
    expect(await quantizeModel(job)).toMatchObject({ resumedBlocks: 1 });
  });

  test('a strict run takes over no warning', async () => {
    const job = jobIn(join(scratch, 'lenient'), { model: silent });
    await expect(quantizeModel({ ...job, onProgress: stopAt('collect', 3) })).rejects.toBe(stop);
    const refused = { code: 'LUTRA_E_STRICT', where: 'model.layers.1.self_attn.q_proj.weight', found: 'deadColumns' };
    await expect(quantizeModel({ ...job, strict: true })).rejects.toMatchObject(refused);
    expect(await quantizeModel(job)).toMatchObject({ resumedBlocks: 2 });
  });

  test('an abort rejects with the reason as it is', async () => {
    const controller = new AbortController();
    const reason = new Error('enough');
    const onProgress = ({ phase }: Progress) => phase === 'journal' && controller.abort(reason);
    const job = jobIn(join(scratch, 'aborted'));
    await expect(quantizeModel({ ...job, signal: controller.signal, onProgress })).rejects.toBe(reason);
    expect(reason.message).toBe('enough');
    expect((await planQuantization(job)).unfinished).toMatchObject({ blocks: 1, takenOver: true });
    await resumes(job, 1);
  });

  test('a disk that runs full in a block keeps those before', async ({ skip }) => {
    const disk = mountSmallDisk(2 ** 22);
    if (!disk) return skip('mounting a small file system needs root');
    try {
      const job = jobIn(disk.path);
      const onProgress = (event: Progress) => {
        if (event.phase === 'collect' && event.block === 2 && event.window === 1) disk.fillUpTo(2 ** 12);
      };
      await expect(quantizeModel({ ...job, onProgress })).rejects.toMatchObject({
        code: 'LUTRA_E_DISK_FULL',
        hint: expect.stringContaining('1 of 3 blocks are kept'),
      });
      rmSync(join(disk.path, 'filler'));
      await resumes(job, 1);
    } finally {
      disk.unmount();
    }
  });

  test('a listener hears of the blocks that are taken over, and of no layer of theirs', async () => {
    const { job } = unfinished();
    const layers: string[] = [];
    const phases: string[] = [];
    await quantizeModel({
      ...job,
      onLayer: ({ name }) => void layers.push(name),
      onProgress: (event) => {
        const of = 'block' in event ? ` ${event.block} of ${event.blocks}` : '';
        if (phases.at(-1) !== event.phase + of) phases.push(event.phase + of);
      },
    });
    const third = ['collect 3 of 3', 'quantize 3 of 3', 'journal 3 of 3'];
    expect(phases).toEqual(['encode', 'plan', 'calibrate', 'hash', 'resume 2 of 3', ...third, 'finish']);
    expect(layers).toHaveLength(7);
    for (const name of layers) expect(name).toMatch(/^model\.layers\.2\./);
  });
});
