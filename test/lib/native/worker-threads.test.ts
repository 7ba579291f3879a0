import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Worker } from 'node:worker_threads';
import { describe, expect, it } from 'vitest';
import { taskIds } from '../../../lib/native/index.js';

/** Each starts an asynchronous call that would take seconds and leaves it running. `addon` is the loaded addon. */
const longCalls: Record<string, string> = {
  runAsync: `
    const x = new addon.Tensor(0, [4096, 512]), gram = new addon.Tensor(3, [512, 512]);
    const program = new addon.Program();
    for (let i = 0; i < 500; i++) program.add(9, [x, gram], [], []);
    program.runAsync(0, 0, null).catch(() => {});`,
  lutGemmAsync: `
    const [m, k] = [4096, 4096];
    const packed = new addon.Packed(new addon.Tensor(4, [m * k / 32 * 16]), new addon.Tensor(1, [m]), null, [m, k, 4, k, 0, 0], null);
    const x = new addon.Tensor(0, [512, k]), y = new addon.Tensor(0, [512, m]);
    for (let i = 0; i < 20; i++) addon.lutGemmAsync(packed, x, y, 0, false, 0, null).catch(() => {});`,
  reverseCholesky: `
    const n = 2500, h = new addon.Tensor(3, [n, n]);
    for (let i = 0; i < n; i++) h.write(new Float64Array([1]), i * n + i);
    for (let i = 0; i < 10; i++) addon.task(${taskIds.reverseCholesky}, [h], [], 0, null).catch(() => {});`,
  findNonFinite: `
    const t = new addon.Tensor(0, [200_000_000]);
    for (let i = 0; i < 100; i++) addon.task(${taskIds.findNonFinite}, [t], [], 0, null).catch(() => {});`,
  readFile: `
    const t = new addon.Tensor(4, [200_000_000]), fd = require('node:fs').openSync(process.env.SPARSE_FILE, 'r');
    for (let i = 0; i < 100; i++) addon.task(${taskIds.readFile}, [t], [fd, 0, 0, 200_000_000], 0, null).catch(() => {});`,
};

const prologue = `
  const { parentPort } = require('node:worker_threads');
  const addon = require('node-gyp-build')(process.cwd());`;

function start(body: string, env: Record<string, string> = {}): Promise<Worker> {
  const worker = new Worker(`${prologue}${body}\nparentPort.postMessage('started');`, {
    eval: true,
    env: { ...process.env, ...env },
  });
  return new Promise((resolve, reject) => {
    worker.once('message', () => resolve(worker));
    worker.once('error', reject);
  });
}

describe('worker threads', () => {
  it('load the addon side by side and compute', async () => {
    const body = `
      const x = new addon.Tensor(0, [3]); x.fill(2);
      const y = new addon.Tensor(0, [3]); y.fill(1);
      new addon.Program().add(16, [x, y], [], []);
      const p = new addon.Program(); p.add(16, [x, y], [], []); p.run(0, 0);
      const out = new Float32Array(3); y.read(out, 0);
      if (out.join() !== '3,3,3') throw new Error(out.join());`;
    const workers = await Promise.all(Array.from({ length: 4 }, () => start(body)));
    await Promise.all(workers.map((worker) => worker.terminate()));
  });

  it.each(Object.keys(longCalls))('terminate() during %s ends the worker, not the process', async (verb) => {
    const folder = mkdtempSync(join(tmpdir(), 'lutra-'));
    const sparse = join(folder, 'sparse');
    writeFileSync(sparse, '');
    truncateSync(sparse, 200_000_000);
    try {
      const worker = await start(longCalls[verb] ?? '', { SPARSE_FILE: sparse });
      await worker.terminate();
      const after = await start('');
      await after.terminate();
    } finally {
      rmSync(folder, { recursive: true });
    }
  });

  it('a process whose only work is a pending call ends when it is settled, and not before', () => {
    const code = `
      const addon = require('node-gyp-build')(process.cwd());
      const t = new addon.Tensor(0, [1000]);
      addon.task(${taskIds.findNonFinite}, [t], [], 0, null).then((r) => process.stdout.write('index ' + r[0]));`;
    const child = spawnSync(process.execPath, ['-e', code], { encoding: 'utf8', timeout: 20_000 });
    expect(child.stdout).toBe('index -1');
    expect(child.status).toBe(0);
  });

  it('process.exit() during a call is a clean exit', () => {
    const code = `${longCalls.findNonFinite?.replace('200_000_000', '50_000_000')} setTimeout(() => process.exit(7), 20);`;
    const child = spawnSync(
      process.execPath,
      ['-e', `const addon = require('node-gyp-build')(process.cwd());${code}`],
      {
        encoding: 'utf8',
        timeout: 20_000,
      },
    );
    expect(child.stderr).toBe('');
    expect(child.status).toBe(7);
  });

  it('an asynchronous call runs while libuv has no free thread', () => {
    // Four slow calls fill libuv's pool; a call of the addon must not wait behind them.
    const code = `
      const addon = require('node-gyp-build')(process.cwd());
      const { pbkdf2 } = require('node:crypto');
      let open = 4;
      for (let i = 0; i < 4; i++) pbkdf2('a', 'b', 1_000_000, 64, 'sha512', () => open--);
      const t = new addon.Tensor(0, [1000]);
      addon.task(${taskIds.findNonFinite}, [t], [], 0, null).then(() => { process.stdout.write(String(open)); process.exit(0); });`;
    const child = spawnSync(process.execPath, ['-e', code], { encoding: 'utf8', timeout: 60_000 });
    expect(child.stdout).toBe('4');
  });
});
