import {
  cpSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { dirname, join } from 'node:path';
import { beforeAll, describe, expect, test } from 'vitest';
import { crc32c } from '../../../lib/formats/index.js';
import { type Progress, planQuantization, type QuantizationJob, quantizeModel } from '../../../lib/pipeline/index.js';
import { mountSmallDisk } from '../../small-disk.js';
import { filesOf, scratchDirectory, words, writeRandomModel } from './random-model.js';

const scratch = scratchDirectory();
const model = join(scratch, 'model');
const blocks = 3;
const calibration = { texts: [words(3000)], samples: 4, sequenceLength: 24 };
const gptq = { method: 'gptq', bits: 3, groupSize: 32 };
const rtn = { method: 'rtn', bits: 3, groupSize: 32 };
const stop = new Error('stop');
let whole: ReadonlyMap<string, Buffer>;
let made = 0;

const jobIn = (parent: string, change: Partial<QuantizationJob> = {}): QuantizationJob => ({
  ...{ model, recipe: gptq, calibration, out: join(parent, 'out') },
  ...change,
});

function stopAt(phase: Progress['phase'], block = 0) {
  return (event: Progress) => {
    if (event.phase === phase && ('block' in event ? event.block : 0) === block) throw stop;
  };
}

/** A job that ended when two of its three blocks were finished, in a directory of its own. */
const unfinished = () => copyOf('unfinished');

/** A job that ended when all its blocks were finished, and its output not yet. */
const unpublished = () => copyOf('unpublished');

function copyOf(run: string): { job: QuantizationJob; work: string } {
  const parent = join(scratch, `parent-${made++}`);
  cpSync(join(scratch, run), parent, { recursive: true });
  const job = jobIn(parent);
  return { job, work: `${job.out}.partial` };
}

async function resumes(job: QuantizationJob, finished: number): Promise<void> {
  expect(await quantizeModel(job)).toMatchObject({ resumedBlocks: finished, out: job.out });
  expect(filesOf(job.out)).toEqual(whole);
  expect(readdirSync(dirname(job.out))).toEqual(['out']);
}

const stateOf = (directory: string) =>
  readdirSync(directory, { recursive: true, encoding: 'utf8' })
    .sort()
    .map((name) => [name, statSync(join(directory, name)).mtimeMs]);

/** A run that must be refused, and leave the work as it is. */
async function refused(job: QuantizationJob, work: string): Promise<unknown> {
  const content = (name: string) => stateOf(join(work, name));
  const before = content('checkpoint');
  const error = await quantizeModel(job).catch((reason: unknown) => reason);
  expect(error).toMatchObject({ hint: expect.stringContaining('--no-resume') });
  expect(content('checkpoint')).toEqual(before);
  expect(existsSync(join(work, 'journal.json'))).toBe(true);
  return error;
}

beforeAll(async () => {
  await writeRandomModel(model, { config: { num_hidden_layers: blocks } });
  const job = jobIn(join(scratch, 'reference'));
  await quantizeModel(job);
  whole = filesOf(job.out);
  for (const [run, onProgress] of [
    ['unfinished', stopAt('collect', 3)],
    ['unpublished', stopAt('finish')],
  ] as const)
    await expect(quantizeModel({ ...jobIn(join(scratch, run)), onProgress })).rejects.toBe(stop);
});

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

// biome-ignore lint/suspicious/noExplicitAny: any JSON
type Json = any;

/** Changes a journal as somebody would who also knows its checksum. */
async function editJournal(work: string, edit: (journal: Json) => void): Promise<void> {
  const path = join(work, 'journal.json');
  const { journal } = JSON.parse(readFileSync(path, 'utf8')) as { journal: Json };
  edit(journal);
  const sum = await crc32c(new TextEncoder().encode(JSON.stringify(journal)));
  writeFileSync(path, JSON.stringify({ crc32c: sum, journal }));
}

function flip(path: string, at: number): void {
  const bytes = readFileSync(path);
  bytes[at]! ^= 1;
  writeFileSync(path, bytes);
}

/** Where a tensor begins in the growing file, whose header is whole. */
function beginOf(work: string, tensor: string): number {
  const bytes = readFileSync(join(work, 'checkpoint', 'model.safetensors'));
  const length = Number(bytes.readBigUInt64LE());
  const header = JSON.parse(bytes.toString('utf8', 8, 8 + length)) as Record<string, { data_offsets: number[] }>;
  return 8 + length + header[tensor]!.data_offsets[0]!;
}

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
    expect([...seen]).toEqual(['plan', 'calibrate', 'hash']);
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

  test('starts afresh where the output is gone', async () => {
    const { job } = await published();
    rmSync(job.out, { recursive: true });
    await resumes(job, 0);
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
    const kept = '1 of 3 blocks are kept:';
    for (const [resumeHint, said] of [
      [undefined, 'call quantizeModel again with the same job to go on.'],
      ['press the button', 'press the button'],
    ]) {
      const hint = `${own} ${kept} ${said}`;
      const message = expect.stringMatching(new RegExp(`^${error.where}: .*, found deadColumns\\. ${hint}$`));
      await expect(quantizeModel({ ...job, strict: true, resumeHint })).rejects.toMatchObject({
        ...{ ...error, hint, message },
        stack: expect.stringContaining(hint),
      });
    }
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
    expect(phases).toEqual(['plan', 'calibrate', 'hash', 'resume 2 of 3', ...third, 'finish']);
    expect(layers).toHaveLength(7);
    for (const name of layers) expect(name).toMatch(/^model\.layers\.2\./);
  });
});
