import { appendFileSync, cpSync, readFileSync, renameSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { beforeAll, describe, expect, test } from 'vitest';
import { openSafetensors } from '../../../lib/formats/index.js';
import { type Manifest, quantizeModel, verifyCheckpoint } from '../../../lib/pipeline/index.js';
import { codeOf } from '../formats/safetensors-bytes.js';
import { scratchDirectory, writeRandomModel } from './random-model.js';

const scratch = scratchDirectory();
const model = join(scratch, 'model');
const whole = join(scratch, 'whole');
const shardBytes = 20_000;

beforeAll(async () => {
  await writeRandomModel(model);
  writeFileSync(join(model, 'LICENSE'), 'terms');
  writeFileSync(join(model, 'generation_config.json'), '{}');
  await quantizeModel({ model, out: whole, recipe: { method: 'rtn', bits: 3, groupSize: 32 }, shardBytes });
});

const manifestIn = (directory: string) =>
  JSON.parse(readFileSync(join(directory, 'manifest.json'), 'utf8')) as Manifest;

/** What is found in a copy after `damage`, as `what name state`. */
async function found(damage: (copy: string) => void | Promise<void>): Promise<string[]> {
  const copy = join(scratch, 'copy');
  cpSync(whole, copy, { recursive: true });
  try {
    await damage(copy);
    const { intact, differences } = await verifyCheckpoint(copy);
    expect(intact).toBe(differences.length === 0);
    return differences.map(({ what, name, state }) => `${what} ${name} ${state}`);
  } finally {
    rmSync(copy, { recursive: true });
  }
}

/** Where a tensor's bytes lie. */
async function placeOf(directory: string, name: string) {
  await using reader = await openSafetensors(directory);
  return reader.entry(name);
}

function flipBit(path: string, at: number): void {
  const bytes = readFileSync(path);
  bytes[at]! ^= 0x10;
  writeFileSync(path, bytes);
}

test('the manifest names every file and every tensor of a checkpoint, which is intact', async () => {
  const { outputs, shardBytes: recorded } = manifestIn(whole);
  await using reader = await openSafetensors(whole);
  expect(Object.keys(outputs.tensors).sort()).toEqual([...reader.entries.keys()].sort());
  const shards = new Set([...reader.entries.values()].map(({ file }) => file));
  expect(shards.size).toBeGreaterThan(2);
  expect(Object.keys(outputs.files)).toEqual(expect.arrayContaining(['LICENSE', 'config.json', 'tokenizer.json']));
  expect(recorded).toBe(shardBytes);
  const { files, tensors, intact, differences } = await verifyCheckpoint(whole, { model });
  expect({ files, tensors }).toEqual({ files: Object.keys(outputs.files).length, tensors: reader.entries.size });
  expect({ intact, differences }).toEqual({ intact: true, differences: [] });
});

test('one bit of a tensor is found where it is', async () => {
  for (const [name, fromEnd] of [
    ['model.layers.0.self_attn.q_proj.codes', 1],
    ['model.layers.1.mlp.down_proj.offsets', 1],
    ['model.norm.weight', 3],
  ] as const)
    expect(
      await found(async (copy) => {
        const { file, end } = await placeOf(copy, name);
        flipBit(file, end - fromEnd);
      }),
    ).toEqual([expect.stringMatching(/^file model-0000\d-of-\d+\.safetensors changed$/), `tensor ${name} changed`]);
});

describe('files', () => {
  test('that are changed, missing or extra', async () => {
    const differences = await found((copy) => {
      appendFileSync(join(copy, 'LICENSE'), ' and more');
      rmSync(join(copy, 'tokenizer_config.json'));
      renameSync(join(copy, 'generation_config.json'), join(copy, 'notes.txt'));
    });
    expect(differences.sort()).toEqual([
      'file LICENSE changed',
      'file generation_config.json missing',
      'file notes.txt extra',
      'file tokenizer_config.json missing',
    ]);
  });

  test('that cannot be read: the tensors of the others are still looked at', async () => {
    const first = await placeOf(whole, 'model.layers.0.self_attn.q_proj.codes');
    const last = await placeOf(whole, 'model.norm.weight');
    expect(first.file).not.toBe(last.file);
    const differences = await found((copy) => {
      truncateSync(first.file.replace(whole, copy), first.end - 1);
      flipBit(last.file.replace(whole, copy), last.begin);
    });
    expect(differences).toContain('tensor model.norm.weight changed');
    // One line for the file, and none for each tensor of it.
    const name = first.file.slice(whole.length + 1);
    expect(differences.filter((line) => line.includes(name))).toEqual([`file ${name} unreadable`]);
    expect(differences.filter((line) => line.endsWith('missing'))).toEqual([]);
  });

  test('that cannot be read, or are gone, say how many tensors are lost with them', async () => {
    const { file } = await placeOf(whole, 'model.layers.0.self_attn.q_proj.codes');
    const directory = join(scratch, 'cut');
    cpSync(whole, directory, { recursive: true });
    const shard = file.replace(whole, directory);
    truncateSync(shard, 100);
    const { tensors, differences } = await verifyCheckpoint(directory);
    expect(differences).toHaveLength(1);
    expect(differences[0]?.found).toMatch(
      new RegExp(`ends too early.* \\d+ of ${tensors} tensors .* quantize .* again`),
    );
    // What to do is said once.
    expect(differences[0]?.found).not.toMatch(/again\.? .*again.*again|\.\./);
    rmSync(shard);
    const name = file.slice(whole.length + 1);
    expect((await verifyCheckpoint(directory)).differences).toMatchObject([{ what: 'file', name, state: 'missing' }]);
  });
});

test('what is told of a model that is not the one that was quantized', async () => {
  const other = join(scratch, 'other');
  cpSync(model, other, { recursive: true });
  flipBit(join(other, 'model.safetensors'), readFileSync(join(other, 'model.safetensors')).length - 1);
  rmSync(join(other, 'LICENSE'));
  const { intact, inputs, differences } = await verifyCheckpoint(whole, { model: other });
  expect({ intact, inputs }).toEqual({ intact: false, inputs: Object.keys(manifestIn(whole).inputs).length });
  expect(differences.map(({ what, name, state }) => `${what} ${name} ${state}`)).toEqual([
    'input LICENSE missing',
    'input model.safetensors changed',
  ]);
  expect(differences[1]?.expected).toBe(manifestIn(whole).inputs['model.safetensors']);
  expect(await codeOf(() => verifyCheckpoint(whole, { model: join(scratch, 'nowhere') }))).toBe('LUTRA_E_NOT_FOUND');
});

describe('what cannot be verified says so', () => {
  test('a model without a manifest', async () => {
    expect(await codeOf(() => verifyCheckpoint(model))).toBe('LUTRA_E_MANIFEST');
  });

  const edited: Record<string, (manifest: Manifest) => unknown> = {
    'of a version that recorded no outputs': ({ outputs: _, ...older }) => older,
    'with a hash that is none': (manifest) => ({
      ...manifest,
      outputs: { ...manifest.outputs, tensors: { x: 'beef' } },
    }),
    'that names a file elsewhere': (manifest) => ({
      ...manifest,
      outputs: { ...manifest.outputs, files: { '../model/config.json': '0'.repeat(64) } },
    }),
  };
  test.each(Object.entries(edited))('a manifest %s', async (_, edit) => {
    const damage = (copy: string) =>
      writeFileSync(join(copy, 'manifest.json'), JSON.stringify(edit(manifestIn(whole))));
    expect(await codeOf(() => found(damage))).toBe('LUTRA_E_MANIFEST');
  });

  test('a layer whose numbers are none', async () => {
    const directory = join(scratch, 'edited');
    cpSync(whole, directory, { recursive: true });
    const path = join(directory, 'manifest.json');
    const text = readFileSync(path, 'utf8');
    for (const [field, value] of [
      ['relativeError', '<script>'],
      ['damping', 'x'],
      ['deadColumns', -1],
    ] as const) {
      const manifest = JSON.parse(text);
      manifest.layers[0][field] = value;
      writeFileSync(path, JSON.stringify(manifest));
      const found = expect.stringContaining(`layers.0.${field}`);
      await expect(verifyCheckpoint(directory)).rejects.toMatchObject({ code: 'LUTRA_E_MANIFEST', found });
    }
  });

  test('a manifest that is no JSON', async () => {
    const damage = (copy: string) => truncateSync(join(copy, 'manifest.json'), 100);
    expect(await codeOf(() => found(damage))).toBe('LUTRA_E_HEADER');
  });
});

test('an abort ends it with its reason', async () => {
  const reason = new Error('enough');
  await expect(verifyCheckpoint(whole, { signal: AbortSignal.abort(reason) })).rejects.toBe(reason);
});
