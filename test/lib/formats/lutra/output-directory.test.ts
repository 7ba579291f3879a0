import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { lstat } from 'node:fs/promises';
import { hostname } from 'node:os';
import { join } from 'node:path';
import { describe, expect, test, vi } from 'vitest';
import { CheckpointWriter, OutputDirectory, planCheckpoint, readCheckpoint } from '../../../../lib/formats/index.js';
import { codeOf, failureOf, scratchDirectory } from '../safetensors-bytes.js';
import { entryOf, qProj, recipe, seededMatrix, writeModel } from '../tiny-model.js';

vi.mock('node:fs/promises', async (original) => {
  const actual = await original<typeof import('node:fs/promises')>();
  return { ...actual, lstat: vi.fn(actual.lstat) };
});

const scratch = scratchDirectory();
let made = 0;
const fresh = (): string => join(scratch, `${made++}`);
const entry = entryOf();

async function create(model: string, out: string, overwrite = false): Promise<CheckpointWriter> {
  await using source = await readCheckpoint(model);
  return CheckpointWriter.create(await planCheckpoint({ source, quantized: new Map([[qProj, entry]]), recipe }), out, {
    overwrite,
  });
}

async function writeTo(
  model: string,
  out: string,
  options: { overwrite?: boolean; seed?: number } = {},
): Promise<void> {
  await using source = await readCheckpoint(model);
  const plan = await planCheckpoint({ source, quantized: new Map([[qProj, entry]]), recipe });
  await using writer = await CheckpointWriter.create(plan, out, { overwrite: options.overwrite ?? false });
  using matrix = seededMatrix(entry, options.seed ?? 1);
  await writer.put(qProj, matrix);
  await writer.finish();
}

/** A parent directory that holds one model and nothing else. */
function parentWithModel(): { parent: string; model: string } {
  const parent = fresh();
  return { parent, model: writeModel(join(parent, 'model')) };
}

describe('never over the input', () => {
  test.each(['its own path', 'a path with dots', 'a link to it', 'its parent'])(
    'by %s, even with overwrite',
    async (kind) => {
      const { parent, model } = parentWithModel();
      const link = join(parent, 'link');
      symlinkSync(model, link);
      const out = {
        'its own path': model,
        'a path with dots': join(model, '..', 'model', '.'),
        'a link to it': link,
        'its parent': parent,
      }[kind]!;
      const before = readFileSync(join(model, 'model.safetensors'));
      for (const overwrite of [false, true])
        expect(await codeOf(() => create(model, out, overwrite))).toBe('LUTRA_E_SAME_PATH');
      expect(readFileSync(join(model, 'model.safetensors'))).toEqual(before);
      expect(readdirSync(parent).sort()).toEqual(['link', 'model']);
    },
  );

  test('where the input has the name of the partial output', async () => {
    const parent = fresh();
    const model = writeModel(join(parent, 'out.partial'));
    expect(await codeOf(() => create(model, join(parent, 'out'), true))).toBe('LUTRA_E_SAME_PATH');
    expect(readdirSync(model).length).toBeGreaterThan(1);
  });

  test('an output inside the input is another directory', async () => {
    const { model } = parentWithModel();
    await writeTo(model, join(model, 'quantized'));
    await (await readCheckpoint(join(model, 'quantized'))).close();
  });
});

describe('never over an existing output', () => {
  test('without overwrite', async () => {
    const { parent, model } = parentWithModel();
    const out = join(parent, 'out');
    await writeTo(model, out);
    const before = readFileSync(join(out, 'model.safetensors'));
    const error = await failureOf(() => create(model, out));
    expect([error.code, error.where]).toEqual(['LUTRA_E_EXISTS', out]);
    expect(readFileSync(join(out, 'model.safetensors'))).toEqual(before);
    expect(readdirSync(parent).sort()).toEqual(['model', 'out']);
  });

  test('with overwrite, the old one stays until the new one is whole', async () => {
    const { parent, model } = parentWithModel();
    const out = join(parent, 'out');
    await writeTo(model, out);
    const before = readFileSync(join(out, 'model.safetensors'));
    const writer = await create(model, out, true);
    expect(readFileSync(join(out, 'model.safetensors'))).toEqual(before);
    await writer.abort();
    expect(readFileSync(join(out, 'model.safetensors'))).toEqual(before);
    await writeTo(model, out, { overwrite: true, seed: 9 });
    expect(readFileSync(join(out, 'model.safetensors')).equals(before)).toBe(false);
    expect(readdirSync(parent).sort()).toEqual(['model', 'out']);
  });

  test('that is no lutra checkpoint, even with overwrite', async () => {
    const { parent, model } = parentWithModel();
    const other = writeModel(join(parent, 'other'));
    mkdirSync(join(parent, 'photos'));
    writeFileSync(join(parent, 'photos', 'cat.jpg'), 'meow');
    writeFileSync(join(parent, 'file'), 'text');
    for (const out of [other, join(parent, 'photos'), join(parent, 'file')])
      expect(await codeOf(() => create(model, out, true))).toBe('LUTRA_E_EXISTS');
    expect(readFileSync(join(parent, 'photos', 'cat.jpg'), 'utf8')).toBe('meow');
  });

  test('an empty directory may be written with overwrite', async () => {
    const { parent, model } = parentWithModel();
    mkdirSync(join(parent, 'out'));
    expect(await codeOf(() => create(model, join(parent, 'out')))).toBe('LUTRA_E_EXISTS');
    await writeTo(model, join(parent, 'out'), { overwrite: true });
    await (await readCheckpoint(join(parent, 'out'))).close();
  });

  test('the leftovers of a killed job are removed, and so is what it had not marked yet', async () => {
    const { parent, model } = parentWithModel();
    // A process that has ended, one with this very id that ended before this one began, one before the machine was started
    // whose id another has now, and a job that has let go of its work.
    const dead = spawnSync(process.execPath, ['-e', '']).pid;
    for (const mark of [
      markOf(dead),
      markOf(process.pid, '7.0'),
      markOf(process.ppid, '7.0'),
      '.lutra-job-released',
      null,
    ]) {
      if (mark) markedPartial(parent, mark);
      else mkdirSync(join(parent, 'out.partial'));
      await writeTo(model, join(parent, 'out'));
      expect(readdirSync(parent).sort()).toEqual(['model', 'out']);
      expect(readdirSync(join(parent, 'out')).filter((name) => /job|leftover/.test(name))).toEqual([]);
      rmSync(join(parent, 'out'), { recursive: true });
    }
  });

  test.skipIf(process.platform !== 'linux')('a process that its parent never looks after has ended, too', async () => {
    const { parent, model } = parentWithModel();
    const keeper = spawn('sh', ['-c', 'sleep 0.1 & echo $!; exec sleep 60']);
    try {
      const [text] = (await once(keeper.stdout, 'data')) as [Buffer];
      const pid = Number(text.toString());
      await expect.poll(() => readFileSync(`/proc/${pid}/stat`, 'utf8')).toMatch(/\) Z /);
      markedPartial(parent, markOf(pid));
      await writeTo(model, join(parent, 'out'));
      expect(readdirSync(parent).sort()).toEqual(['model', 'out']);
    } finally {
      keeper.kill();
    }
  });

  test('that a killed job had put aside comes back', async () => {
    const { parent, model } = parentWithModel();
    const out = join(parent, 'out');
    await writeTo(model, out);
    const before = readFileSync(join(out, 'model.safetensors'));
    const partial = markedPartial(parent, markOf(process.pid, '7.0'));
    mkdirSync(join(partial, 'checkpoint'));
    renameSync(out, join(partial, 'replaced'));
    expect(await codeOf(() => create(model, out))).toBe('LUTRA_E_EXISTS');
    expect(readFileSync(join(out, 'model.safetensors'))).toEqual(before);
    expect(readdirSync(parent).sort()).toEqual(['model', 'out']);
  });
});

const markOf = (pid: number, born = birthOf(pid), host = hostname()): string =>
  `.lutra-job-${pid}-${born}.1-${encodeURIComponent(host)}`;

/** When a process began, and which start of the system that was. */
function birthOf(pid: number): string {
  try {
    const boot = readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').slice(0, 8);
    return `${readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ').at(-1)!.split(' ')[19]}.${boot}`;
  } catch {
    return '0';
  }
}

/** `out.partial` with a file in it, and with the mark of a job. */
function markedPartial(parent: string, mark?: string): string {
  const partial = join(parent, 'out.partial');
  mkdirSync(partial);
  writeFileSync(join(partial, 'leftover'), 'mine');
  if (mark) writeFileSync(join(partial, mark), '');
  return partial;
}

describe('a partial output that is no leftover is never removed, even with overwrite', () => {
  test.each([
    ['a stranger’s', undefined, undefined],
    ['a running job’s', markOf(process.ppid), `process ${process.ppid}`],
    ['another machine’s', markOf(2 ** 22 + 1, '7.0', 'else where'), `process ${2 ** 22 + 1} of "else where"`],
  ])('%s', async (_, mark, found) => {
    const { parent, model } = parentWithModel();
    const partial = markedPartial(parent, mark);
    const before = readdirSync(partial);
    for (const overwrite of [false, true]) {
      const error = await failureOf(() => create(model, join(parent, 'out'), overwrite));
      expect([error.code, error.where]).toEqual(['LUTRA_E_EXISTS', partial]);
      expect(error.found).toBe(found);
      expect(error.hint).toMatch(mark ? /rename "\.lutra-job-/ : /remove/i);
    }
    expect(readdirSync(partial)).toEqual(before);
  });

  test('of two jobs for one output the second fails and the first ends whole', async () => {
    const { parent, model } = parentWithModel();
    const out = join(parent, 'out');
    const whole = join(parent, 'whole');
    await writeTo(model, whole);
    await using source = await readCheckpoint(model);
    const plan = await planCheckpoint({ source, quantized: new Map([[qProj, entry]]), recipe });
    const first = await CheckpointWriter.create(plan, out, { overwrite: true });
    const error = await failureOf(() => writeTo(model, out, { overwrite: true, seed: 9 }));
    expect([error.code, error.found]).toEqual(['LUTRA_E_EXISTS', `process ${process.pid}`]);
    using matrix = seededMatrix(entry, 1);
    await first.put(qProj, matrix);
    await first.finish();
    expect(readdirSync(out)).toEqual(readdirSync(whole));
    expect(readFileSync(join(out, 'model.safetensors'))).toEqual(readFileSync(join(whole, 'model.safetensors')));
    expect(readdirSync(parent).sort()).toEqual(['model', 'out', 'whole']);
  });

  test('a clock that jumps makes no running job look dead', async () => {
    const { parent, model } = parentWithModel();
    const out = join(parent, 'out');
    const first = await create(model, out);
    const now = Date.now();
    for (const jump of [-(10 ** 9), 10 ** 9]) {
      vi.spyOn(Date, 'now').mockReturnValue(now + jump);
      expect(await codeOf(() => create(model, out, true))).toBe('LUTRA_E_EXISTS');
    }
    vi.restoreAllMocks();
    await first.abort();
  });

  test('what cannot be looked at is not taken for nothing', async () => {
    const { parent, model } = parentWithModel();
    const partial = markedPartial(parent, '.lutra-job-released');
    writeFileSync(join(partial, 'journal.json'), 'hours of work');
    mkdirSync(join(partial, 'checkpoint'));
    const broken = Object.assign(new Error('EIO: i/o error'), { code: 'EIO', syscall: 'lstat' });
    const claim = () =>
      OutputDirectory.claim(join(parent, 'out'), { source: model, overwrite: false, leftover: 'resume' });
    // The work directory is there; whether the journal is cannot be told.
    vi.mocked(lstat).mockResolvedValueOnce(statSync(partial)).mockRejectedValueOnce(broken);
    expect(await codeOf(claim)).toBe('LUTRA_E_IO');
    expect(readdirSync(partial).sort()).toEqual(['.lutra-job-released', 'checkpoint', 'journal.json', 'leftover']);
  });

  test('of many jobs that find one leftover at once, one has the output', async () => {
    const { parent, model } = parentWithModel();
    markedPartial(parent, markOf(process.pid, '7.0'));
    const jobs = Array.from({ length: 8 }, () => create(model, join(parent, 'out'), true));
    const settled = await Promise.allSettled(jobs);
    const claimed = settled.flatMap((job) => (job.status === 'fulfilled' ? [job.value] : []));
    expect(claimed).toHaveLength(1);
    for (const job of settled) if (job.status === 'rejected') expect(job.reason.code).toBe('LUTRA_E_EXISTS');
    await claimed[0]!.abort();
    expect(readdirSync(parent)).toEqual(['model']);
  });
});

describe('a job that does not end well leaves nothing', () => {
  test('before, between and after its matrices', async () => {
    const { parent, model } = parentWithModel();
    const out = join(parent, 'deep', 'deeper', 'out');
    for (const matrices of [0, 1]) {
      const writer = await create(model, out);
      expect(existsSync(`${out}.partial`)).toBe(true);
      expect(existsSync(out)).toBe(false);
      using matrix = seededMatrix(entry, 1);
      if (matrices) await writer.put(qProj, matrix);
      await writer.abort();
      await writer.abort();
      expect(readdirSync(parent)).toEqual(['model']);
    }
  });

  test('when it is aborted in finish', async () => {
    const { parent, model } = parentWithModel();
    await using source = await readCheckpoint(model);
    const plan = await planCheckpoint({ source, quantized: new Map([[qProj, entry]]), recipe });
    const reason = new Error('stop');
    {
      await using writer = await CheckpointWriter.create(plan, join(parent, 'out'));
      using matrix = seededMatrix(entry, 1);
      await writer.put(qProj, matrix);
      await expect(writer.finish(undefined, { signal: AbortSignal.abort(reason) })).rejects.toBe(reason);
    }
    expect(readdirSync(parent)).toEqual(['model']);
  });

  test('when the source loses bytes meanwhile', async () => {
    const { parent, model } = parentWithModel();
    await using source = await readCheckpoint(model);
    const plan = await planCheckpoint({ source, quantized: new Map([[qProj, entry]]), recipe });
    {
      await using writer = await CheckpointWriter.create(plan, join(parent, 'out'));
      using matrix = seededMatrix(entry, 1);
      await writer.put(qProj, matrix);
      writeFileSync(join(model, 'model.safetensors'), 'cut');
      expect(await codeOf(() => writer.finish())).toBe('LUTRA_E_TRUNCATED');
    }
    expect(readdirSync(parent)).toEqual(['model']);
  });

  test('after finish, abort does nothing', async () => {
    const { parent, model } = parentWithModel();
    await writeTo(model, join(parent, 'out'));
    expect(readdirSync(join(parent, 'out'))).toContain('config.json');
  });
});

test('a copied file that leads out of the model is refused', async () => {
  const { parent, model } = parentWithModel();
  writeFileSync(join(parent, 'secret'), 'secret');
  symlinkSync('../secret', join(model, 'LICENSE'));
  expect(await codeOf(() => writeTo(model, join(parent, 'out')))).toBe('LUTRA_E_HEADER');
  expect(readdirSync(parent).sort()).toEqual(['model', 'secret']);
});
