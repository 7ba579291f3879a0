import { execFileSync } from 'node:child_process';
import { cpSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';
import { isLutraErrorCode, LutraError, type LutraErrorCode, lutraError, onOneLine } from '../lib/errors.js';
import { planSafetensors, SafetensorsWriter } from '../lib/formats/index.js';
import {
  loadModel,
  type Progress,
  type QuantizationJob,
  quantize,
  quantizeModel,
  recordedJob,
  Tensor,
  verifyCheckpoint,
} from '../lib/index.js';
import { load } from '../lib/native/index.js';
import { type Damage, damages, editConfig } from './damaged-model.js';
import { fakeCuda } from './fake-cuda.js';
import { scratchDirectory, words, writeRandomModel } from './lib/pipeline/random-model.js';
import { mountSmallDisk } from './small-disk.js';

const root = join(import.meta.dirname, '..');
const page = readFileSync(join(root, 'docs', 'errors.md'), 'utf8');
const scratch = scratchDirectory();
const disk = mountSmallDisk(2 ** 16);

// Relative paths: what is raised here are the examples of docs/errors.md.
beforeAll(async () => {
  process.chdir(scratch);
  mkdirSync('empty');
  await writeRandomModel('model');
});
afterAll(() => {
  process.chdir(root);
  disk?.unmount();
});

const rtn = { method: 'rtn', bits: 3, groupSize: 32 };
const job = (change: Partial<QuantizationJob>) => quantizeModel({ model: 'model', out: 'out', recipe: rtn, ...change });
const calibrated = (calibration: QuantizationJob['calibration']) =>
  job({ recipe: { ...rtn, method: 'gptq' }, calibration });
const damaged = (damage: Damage) => {
  cpSync('model', 'damaged', { recursive: true });
  damages[damage]('damaged');
  return job({ model: 'damaged' });
};
/** Leaves a job of which one block is finished. */
const unfinished = async () => {
  const onProgress = ({ phase }: Progress) => {
    if (phase === 'journal') throw new Error('stop');
  };
  await job({ onProgress }).catch(() => {});
};

const objects = scratchDirectory();
const onCuda = async (object: string) => {
  vi.stubEnv('LUTRA_CUDA_PATH', object);
  await loadModel('model', { device: 'cuda' }).finally(() => vi.unstubAllEnvs());
};

/** Raises every code that there is (the compiler sees to that) from a real cause. */
const causes: Record<LutraErrorCode, () => unknown> = {
  LUTRA_E_NOT_FOUND: () => job({ model: 'nowhere' }),
  LUTRA_E_TRUNCATED: () => damaged('a truncated file'),
  LUTRA_E_HEADER: () => damaged('duplicate keys'),
  LUTRA_E_OFFSETS: () => damaged('overlapping offsets'),
  LUTRA_E_DTYPE: () => damaged('a type that no weight has'),
  LUTRA_E_SHAPE: () => damaged('a config that contradicts the shapes'),
  LUTRA_E_NON_FINITE: () => damaged('a NaN'),
  LUTRA_E_NOT_POSITIVE_DEFINITE: () => {
    const hessian = Tensor.from(new Float64Array(32 * 32).fill(-1), [32, 32]);
    const w = Tensor.from(new Float32Array(16 * 32).fill(1), [16, 32]);
    return quantize(w, { ...rtn, method: 'gptq' }, { statistics: { hessian } });
  },
  LUTRA_E_STRICT: async () => {
    const silence = (name: string, values: Float32Array) =>
      name.endsWith('0.input_layernorm.weight') && values.fill(0, 9, 10);
    await writeRandomModel('damaged', { edit: silence });
    const calibration = { texts: [words(3000)], samples: 4 };
    await job({ model: 'damaged', recipe: { ...rtn, method: 'gptq' }, calibration, strict: true });
  },
  LUTRA_E_METHOD: () => job({ recipe: { ...rtn, method: 'gtpq' } }),
  LUTRA_E_BITS: () => job({ recipe: { ...rtn, bits: 5 } }),
  LUTRA_E_GROUP_SIZE: () => job({ recipe: { ...rtn, groupSize: 100 } }),
  LUTRA_E_OPTION: () => calibrated({ texts: [words(3000)], samples: 0 }),
  LUTRA_E_CALIBRATION_TOO_SHORT: () => calibrated({ texts: [words(30)], sequenceLength: 48 }),
  LUTRA_E_DISK_FULL: () => job({ out: join(disk!.path, 'out') }),
  LUTRA_E_IO: () => calibrated({ file: 'model' }),
  LUTRA_E_MEMORY: () => Tensor.zeros('f64', [2 ** 45]),
  LUTRA_E_SAME_PATH: () => job({ out: 'model', overwrite: true }),
  LUTRA_E_EXISTS: () => job({ out: 'empty' }),
  LUTRA_E_RESUME_MISMATCH: async () => {
    await unfinished();
    await job({ recipe: { ...rtn, bits: 2 } });
  },
  LUTRA_E_RESUME_DAMAGED: async () => {
    await unfinished();
    writeFileSync(
      'out.partial/journal.json',
      readFileSync('out.partial/journal.json', 'utf8').replace('"bits":3', '"bits":4'),
    );
    await job({});
  },
  LUTRA_E_UNSUPPORTED_MODEL: () => damaged('an architecture that lutra does not know'),
  LUTRA_E_FORMAT_VERSION: async () => {
    await job({ out: 'damaged' });
    const config = JSON.parse(readFileSync('damaged/config.json', 'utf8'));
    editConfig('damaged', { quantization_config: { ...config.quantization_config, format_version: 2 } });
    await loadModel('damaged');
  },
  LUTRA_E_MANIFEST: () => verifyCheckpoint('model'),
  LUTRA_E_INPUT_CHANGED: async () => {
    await job({ out: 'damaged' });
    const other = await recordedJob('damaged', { model: 'damaged-model', out: 'out' });
    await writeRandomModel('damaged-model', { seed: 2 });
    await quantizeModel(other).finally(() => rmSync('damaged-model', { recursive: true }));
  },
  LUTRA_E_NOT_REPEATABLE: async () => {
    await job({ out: 'damaged' });
    const manifest = JSON.parse(readFileSync('damaged/manifest.json', 'utf8'));
    const edited = { ...manifest, lutra: { ...manifest.lutra, version: '0.0.1' } };
    writeFileSync('damaged/manifest.json', JSON.stringify(edited));
    await recordedJob('damaged', { model: 'model', out: 'out' });
  },
  LUTRA_E_DISPOSED: () => {
    const tensor = Tensor.zeros('f32', [4]);
    tensor.dispose();
    tensor.read();
  },
  LUTRA_E_DEVICE: () => onCuda(fakeCuda(objects, 'failed')),
  LUTRA_E_CUDA_NOT_BUILT: () => onCuda(join(objects, 'nothing.so')),
  LUTRA_E_CUDA_OBJECT: () => onCuda(join(root, 'package.json')),
  LUTRA_E_CUDA_ABI: () => onCuda(fakeCuda(objects, 'ok', 99)),
  LUTRA_E_CUDA_NO_DRIVER: () => onCuda(fakeCuda(objects, 'noDriver')),
  LUTRA_E_CUDA_DRIVER: () => onCuda(fakeCuda(objects, 'driverTooOld')),
  LUTRA_E_CUDA_NO_DEVICE: () => onCuda(fakeCuda(objects, 'noDevice')),
  LUTRA_E_CUDA_ARCHITECTURE: () => onCuda(fakeCuda(objects, 'noArchitecture')),
  LUTRA_E_CUDA_MEMORY: () => onCuda(fakeCuda(objects, 'noMemory')),
  LUTRA_E_NO_BINARY: () => load('empty'),
  // No input is known to raise it: the library itself must be misused from inside.
  LUTRA_E_INTERNAL: async () => {
    const planned = planSafetensors([{ name: 'x', dtype: 'U8', shape: [8] }]);
    const writer = await SafetensorsWriter.create('empty', planned);
    await writer.close().finally(() => writer.abandon());
  },
};

async function raised(code: LutraErrorCode): Promise<LutraError> {
  try {
    await causes[code]();
  } catch (error) {
    if (error instanceof LutraError) return error;
    throw error;
  } finally {
    for (const left of ['damaged', 'out.partial']) rmSync(left, { recursive: true, force: true });
  }
  throw new Error('nothing was thrown');
}

/** Heads and bodies of the page's sections. */
const sections = page.split(/^### /m).slice(1);
const sectionOf = (code: string) => sections.find((section) => section.startsWith(`${code}\n`)) ?? '';
/** The example's lines, in which … stands for what differs from machine to machine. */
const exampleOf = (code: string) =>
  /^ {4}(\S.*(?:\n {4}.+)*)$/m.exec(sectionOf(code))?.[1]?.replaceAll('\n    ', '\n') ?? 'no example';

test('docs/errors.md lists every code once, and no other', () => {
  const listed = sections.map((section) => section.split('\n')[0]);
  expect(listed.sort()).toEqual(Object.keys(causes).sort());
});

test.for(Object.keys(causes) as LutraErrorCode[])('%s is raised, and reads as documented', async (code, { skip }) => {
  if (code === 'LUTRA_E_DISK_FULL' && !disk) return skip('mounting a small file system needs root');
  const before = readdirSync('.').sort();
  const error = await raised(code);
  expect(error.code).toBe(code);
  const literal = exampleOf(code).split('…').map(escapePattern);
  expect(`${code} ${error.message}`).toMatch(new RegExp(`^${literal.join('.*')}$`));
  expect(sectionOf(code)).toMatch(/^\*\*What to do\.\*\* \S/m);
  expect(readdirSync('.').sort(), 'debris').toEqual(before);
});

const escapePattern = (text: string) => text.replace(/[\\^$.*+?()[\]{}|]/g, '\\$&');

describe('texts that come from elsewhere', () => {
  // More than a message may cost: what took the square of them would not come back.
  const blanks = ' '.repeat(1e6);

  test('of a million blanks are put on one line as they are', () => {
    expect(onOneLine(`a${blanks}b`)).toBe(`a${blanks}b`);
    expect(onOneLine(`a${blanks}\n${blanks}b \r\n\n c\u2003d`)).toBe('a b c\u2003d');
  });

  test('are cut in the message, and whole in the fields', () => {
    const part = `${blanks}\n`;
    const details = { where: part, message: part, found: part, expected: part, items: [part], hint: part };
    const error = lutraError('LUTRA_E_HEADER', details);
    expect(error.message.length).toBeLessThan(13_000);
    expect(error.message.split('\n')).toHaveLength(3);
    expect(error).toMatchObject({ where: part, found: part, items: [part], hint: part });
  });
});

describe('sources', () => {
  test('speak of no code that is not in the list', () => {
    const files = execFileSync('git', ['ls-files', 'lib', 'native', 'test', 'docs', 'bench'], { cwd: root });
    const unknown = files
      .toString()
      .trim()
      .split('\n')
      .filter((file) => /\.(ts|cc|h|md|mjs)$/.test(file))
      .flatMap((file) => readFileSync(join(root, file), 'utf8').match(/LUTRA_E_[A-Z]+(_[A-Z]+)*/g) ?? [])
      .filter((code) => !isLutraErrorCode(code));
    expect([...new Set(unknown)]).toEqual([]);
  });
});
