import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { describe, expect, it } from 'vitest';
import * as api from '../../lib/index.js';
import { memoryAtRest } from '../memory-at-rest.js';
import { gram, normal } from './quantization/matrices.js';

const { dequantize, lutGemm, lutGemmAsync, nativeMemory, quantize, Tensor } = api;
const root = join(import.meta.dirname, '..', '..');

/** The functions and classes of docs/architecture.md's decision 12, and what belongs to them. */
const names = [
  ...[
    'quantize',
    'dequantize',
    'toPlanes',
    'recordedJob',
    'verifyCheckpoint',
    'packPlanes',
    'normalizeRecipe',
    'lutGemm',
    'lutGemmAsync',
    'lutGemmErrorBound',
    'planQuantization',
    'quantizeModel',
  ],
  ...['loadModel', 'Model', 'evaluate', 'readCheckpoint', 'Checkpoint', 'doctor', 'nativeMemory'],
  ...['Tensor', 'QuantizedTensor', 'LutraError', 'LutraInputError', 'LutraFormatError', 'LutraNumericError'],
  ...['prepareActivations', 'PreparedActivations', 'stackRows'],
  ...['LutraResourceError', 'LutraDeviceError', 'LutraInternalError'],
].sort();

describe('the package', () => {
  const node = (...args: string[]) => spawnSync(process.execPath, args, { cwd: root, encoding: 'utf8' });
  const ask = 'console.log(Object.keys(lutra).sort().join(), lutra.Tensor.zeros("f32", [3]).byteLength)';

  it('is imported, and required, without a word on stderr', () => {
    const imported = node('--input-type=module', '-e', `import * as lutra from './dist/index.js'; ${ask}`);
    expect(imported).toMatchObject({ status: 0, stdout: `${names.join()} 12\n`, stderr: '' });
    const required = node('--no-warnings', '-e', `const lutra = require('./dist/index.js'); ${ask}`);
    expect(required).toMatchObject({ status: 0, stdout: `${names.join()} 12\n`, stderr: '' });
  });

  it('loads neither the command line nor a server', () => {
    const seen = new Set<string>();
    const visit = (file: string) => {
      if (seen.has(file)) return;
      seen.add(file);
      if (!file.startsWith(root)) return;
      for (const [, target = ''] of readFileSync(file, 'utf8').matchAll(/(?:from|import) '([^']+)'/g))
        visit(target.startsWith('.') ? join(dirname(file), target) : target);
    };
    visit(join(root, 'dist', 'index.js'));
    expect(seen.size).toBeGreaterThan(40);
    const unwanted = /\/dist\/(cli|server|report)\/|^(commander|cli-progress|tinybench|node:https?)$/;
    expect([...seen].filter((file) => unwanted.test(file))).toEqual([]);
  });

  it('cannot be imported, nor required, where no binary fits', () => {
    const env = { ...process.env, LUTRA_PREBUILD: join(root, 'docs') };
    const imported = "import('./dist/index.js').catch(({ code }) => console.log(code))";
    const required = "try { require('./dist/index.js') } catch ({ code }) { console.log(code) }";
    for (const code of [imported, required]) {
      const { stdout } = spawnSync(process.execPath, ['-e', code], { cwd: root, encoding: 'utf8', env });
      expect(stdout).toBe('LUTRA_E_NO_BINARY\n');
    }
  });
});

const [m, k] = [70, 96];
const quantized = (rows = m, cols = k) =>
  quantize(Tensor.from(normal(rows, cols, 3), [rows, cols]), { method: 'rtn', bits: 3, groupSize: 32 });
const detach = ({ buffer }: { buffer: ArrayBufferLike }) =>
  structuredClone(null, { transfer: [buffer as ArrayBuffer] });
const inputs = (tokens = 5, cols = k) => normal(tokens, cols, 4);

describe('lutGemm', () => {
  it('gives the same bits sync and async, into any output, on any number of threads', async () => {
    using q = await quantized();
    const x = Tensor.from(inputs(), [5, k]);
    for (const mode of ['exact', 'accurate', 'fast'] as const) {
      const y = lutGemm(x, q, { mode });
      expect(y.shape).toEqual([5, m]);
      for (const threads of [1, 2, 7]) expect(lutGemm(x, q, { mode, threads }).read()).toEqual(y.read());
      const array = new Float32Array(5 * m);
      const out = Tensor.from(array, [5, m]);
      expect(lutGemm(x, q, { mode, out })).toBe(out);
      expect(array).toEqual(y.read());
      const native = Tensor.zeros('f32', [5, m]);
      expect(await lutGemmAsync(x, q, { mode, out: native, threads: 2 })).toBe(native);
      expect(native.read()).toEqual(y.read());
    }
  });

  it('takes a vector for a token, and accurate for the default mode', async () => {
    using q = await quantized();
    const x = inputs(1);
    const y = lutGemm(Tensor.from(x), q);
    expect(y.shape).toEqual([m]);
    expect(y.read()).toEqual(lutGemm(Tensor.from(x, [1, k]), q, { mode: 'accurate' }).read());
    const w = dequantize(q).read();
    const exact = lutGemm(Tensor.from(x), q, { mode: 'exact' }).read();
    for (let row = 0; row < m; row++) {
      const sum = x.reduce((total, value, col) => total + value * w[row * k + col]!, 0);
      expect(exact[row]).toBeCloseTo(sum, 4);
    }
  });

  it('copies borrowed inputs of an asynchronous call in', async () => {
    using q = await quantized();
    const data = inputs();
    const before = lutGemm(Tensor.from(data, [5, k]), q).read();
    const running = lutGemmAsync(Tensor.from(data, [5, k]), q);
    detach(data);
    expect((await running).read()).toEqual(before);
  });

  it('refuses misuse by its code, sync and async alike', async () => {
    using q = await quantized();
    const gone = await quantized();
    gone.dispose();
    const x = Tensor.from(inputs(), [5, k]);
    const disposed = Tensor.zeros('f32', [5, k]);
    disposed.dispose();
    const detached = inputs();
    const lost = Tensor.from(detached, [5, k]);
    detach(detached);
    const zeros = (dtype: api.Dtype, ...shape: number[]) => Tensor.zeros(dtype, shape);
    type Call = [code: string, x: api.Tensor, q: api.QuantizedTensor, options?: api.LutGemmOptions];
    const calls: Call[] = [
      ['LUTRA_E_SHAPE', zeros('f32', 5, k - 1), q],
      ['LUTRA_E_SHAPE', zeros('f32', 5, k + 32), q],
      ['LUTRA_E_DTYPE', zeros('f64', 5, k), q],
      ['LUTRA_E_DTYPE', zeros('f16', 5, k), q],
      ['LUTRA_E_DTYPE', zeros('i32', 5, k), q],
      ['LUTRA_E_SHAPE', x, q, { out: zeros('f32', 4, m) }],
      ['LUTRA_E_SHAPE', x, q, { out: zeros('f32', 5, m - 1) }],
      ['LUTRA_E_SHAPE', x, q, { out: zeros('f32', 1) }],
      ['LUTRA_E_DTYPE', x, q, { out: zeros('f64', 5, m) }],
      ['LUTRA_E_OPTION', x, q, { mode: 'precise' as 'exact' }],
      ['LUTRA_E_OPTION', x, q, { mode: 'toString' as 'exact' }],
      ['LUTRA_E_OPTION', x, q, { threads: -1 }],
      ['LUTRA_E_OPTION', x, q, { threads: 1.5 }],
      ['LUTRA_E_DISPOSED', disposed, q],
      ['LUTRA_E_DISPOSED', lost, q],
      ['LUTRA_E_DISPOSED', x, gone],
      ['LUTRA_E_DISPOSED', x, q, { out: disposed }],
      ['LUTRA_E_DTYPE', inputs() as unknown as api.Tensor, q],
      ['LUTRA_E_DTYPE', x, x as unknown as api.QuantizedTensor],
      ['LUTRA_E_DTYPE', x, q, { out: new Float32Array(5 * m) as unknown as api.Tensor }],
    ];
    for (const [index, [code, ...args]] of calls.entries()) {
      expect(() => lutGemm(...args), `call ${index}`).toThrow(expect.objectContaining({ code }));
      await expect(lutGemmAsync(...args), `call ${index}`).rejects.toMatchObject({ code });
    }
    const borrowed = Tensor.from(new Float32Array(5 * m), [5, m]);
    await expect(lutGemmAsync(x, q, { out: borrowed })).rejects.toMatchObject({ code: 'LUTRA_E_OPTION' });
  });
});

describe('quantize', () => {
  it('copies borrowed operands in, and leaves nothing behind but its result', async () => {
    const w = normal(m, k, 5);
    const h = gram(k, 200, 6);
    const run = (weights: Float32Array, hessian: Float64Array) =>
      quantize(
        Tensor.from(weights, [m, k]),
        { method: 'gptq', bits: 3, groupSize: 32 },
        { statistics: { hessian: Tensor.from(hessian, [k, k]) } },
      );
    const expected = dequantize(await run(w, h)).read();
    const before = await memoryAtRest();
    const [copy, hessianCopy] = [w.slice(), h.slice()];
    const running = run(copy, hessianCopy);
    detach(copy);
    detach(hessianCopy);
    const q = await running;
    expect(nativeMemory() - before).toBe(q.byteLength);
    expect(dequantize(q).read()).toEqual(expected);
  });

  it('refuses what is no matrix of numbers', async () => {
    const recipe = { method: 'rtn', bits: 3, groupSize: 32 };
    const refused = (w: api.Tensor) => expect(quantize(w, recipe)).rejects;
    await refused(Tensor.zeros('f32', [k])).toMatchObject({ code: 'LUTRA_E_SHAPE' });
    await refused(Tensor.zeros('i32', [m, k])).toMatchObject({ code: 'LUTRA_E_DTYPE' });
    await refused(new Float32Array(4) as unknown as api.Tensor).toMatchObject({ code: 'LUTRA_E_DTYPE' });
    const disposed = Tensor.zeros('f32', [m, k]);
    disposed.dispose();
    await refused(disposed).toMatchObject({ code: 'LUTRA_E_DISPOSED' });
  });
});

describe('an abort', () => {
  it('rejects lutGemmAsync and quantize with its reason, before and while they run', async () => {
    const n = 1536;
    const hessian = Tensor.copyOf(gram(n, 64, 8), [n, n]);
    const w = Tensor.copyOf(normal(n, n, 9), [n, n]);
    const q = await quantize(w, { method: 'rtn', bits: 4, groupSize: 32 });
    const x = Tensor.zeros('f32', [2048, n]);
    const recipe = { method: 'gptq', bits: 3, groupSize: 32 };
    const verbs = {
      lutGemmAsync: (signal: AbortSignal) => lutGemmAsync(x, q, { mode: 'exact', signal }),
      quantize: (signal: AbortSignal) => quantize(w, recipe, { statistics: { hessian }, signal }),
    };
    const before = await memoryAtRest();
    for (const [name, verb] of Object.entries(verbs)) {
      await expect(verb(AbortSignal.abort('early')), name).rejects.toBe('early');
      const controller = new AbortController();
      const reason = new Error(`stop ${name}`);
      const running = verb(controller.signal);
      setImmediate(() => controller.abort(reason));
      await expect(running, name).rejects.toBe(reason);
    }
    expect(nativeMemory()).toBe(before);
  });
});
