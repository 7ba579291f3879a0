import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { readSettings } from '../../../lib/formats/index.js';

const scratch = mkdtempSync(join(tmpdir(), 'lutra-settings-'));
afterAll(() => rmSync(scratch, { recursive: true }));

function fileOf(extension: string, content: string | Uint8Array): string {
  const file = join(scratch, `settings.${extension}`);
  writeFileSync(file, content);
  return file;
}

const settings = {
  solver: { method: 'gptq', damping: 0.01, actOrder: true },
  grid: { bits: 3, groupSize: -1 },
  overrides: [{ match: '*.down_proj', bits: 4 }],
  lowRank: null,
};
const yaml = `# How to quantize
solver:
  method: gptq   # the second order
  damping: 1e-2
  actOrder: true
grid: { bits: 3, groupSize: -1 }
overrides:
  - match: "*.down_proj"
    bits: 4
lowRank: ~
`;

describe('settings', () => {
  it.each([
    ['json', JSON.stringify(settings, null, 2)],
    ['yaml', yaml],
    ['yml', yaml],
    ['YAML', yaml],
    ['yaml', JSON.stringify(settings)],
    ['yaml', `---\n${yaml}...\n`],
    ['yaml', `\ufeff${yaml}`],
    ['yaml', yaml.replaceAll('\n', '\r\n')],
  ])('are the same in %s: %j', async (extension, content) => {
    expect(await readSettings(fileOf(extension, content))).toEqual(settings);
  });

  it.each([
    ['yaml', 'bits: 2\nmethod: rtn\nbits: 3\n'],
    ['yaml', 'grid: { "bits": 2, "bits": 3 }\n'],
    ['json', '{ "bits": 2, "bits": 3 }'],
  ])('in %s name the key that appears twice: %j', async (extension, content) => {
    await expect(readSettings(fileOf(extension, content))).rejects.toThrow('the key "bits" appears twice');
  });

  it('are YAML 1.2: no and 1_0 are texts, and so is what begins like an alias in quotes or in a block', async () => {
    const text = 'a: no\nb: 1_0\nc: "&d"\ne: |\n  *f\ng: 0o17\n';
    expect(await readSettings(fileOf('yaml', text))).toEqual({ a: 'no', b: '1_0', c: '&d', e: '*f\n', g: 15 });
  });

  it.each<[string, string, string, number, number]>([
    ['a key that appears twice', 'yaml', 'bits: 2\nmethod: rtn\nbits: 3\n', 3, 1],
    ['a key that appears twice in braces', 'yaml', 'grid: { bits: 2,\n  bits: 3 }\n', 2, 3],
    ['a key that appears twice', 'json', '{\n  "bits": 2,\n  "bits": 3\n}', 3, 9],
    ['a comma too many', 'json', '{\n  "bits": 2,\n\n}', 4, 1],
    ['a comment', 'json', '// bits\n{ "bits": 2 }', 1, 1],
    ['two values', 'json', '{ "bits": 2 }\n{ "bits": 3 }', 2, 1],
    ['two documents', 'yaml', 'bits: 2\n---\nbits: 3\n', 2, 1],
    ['an open bracket', 'yaml', 'bits: [2,\n', 2, 1],
    ['a bad indent', 'yaml', 'grid:\n  bits: 2\n groupSize: 32\n', 3, 1],
    ['a tab for an indent', 'yaml', 'grid:\n\tbits: 2\n', 2, 1],
    ['an anchor', 'yaml', 'a: &one 1\n', 1, 4],
    ['an alias', 'yaml', 'a: 1\nb: *a\n', 2, 4],
    ['a list within itself', 'yaml', '&a [*a]\n', 1, 1],
    ['a tag', 'yaml', 'a: !!set { b }\n', 1, 4],
    ['an older YAML', 'yaml', '%YAML 1.1\n---\na: yes\n', 1, 1],
    ['a key that is a list', 'yaml', '? [a]\n: 1\n', 1, 3],
    ['a key of every object', 'yaml', 'a:\n  __proto__: 1\n', 2, 3],
    ['a key of every object', 'json', '{ "__proto__": 1 }', 1, 14],
  ])('with %s in %s are refused at line and column: %j', async (_, extension, content, line, column) => {
    const file = fileOf(extension, content);
    await expect(readSettings(file)).rejects.toMatchObject({
      code: 'LUTRA_E_OPTION',
      where: `${file}:${line}:${column}`,
    });
  });

  it.each([
    ['json', '['.repeat(50_000)],
    ['yaml', '['.repeat(50_000)],
    ['yaml', '{a: '.repeat(50_000)],
    ['yaml', '- '.repeat(50_000)],
    ['yaml', '? '.repeat(50_000)],
  ])('that nest without end are refused (%s)', async (extension, content) => {
    await expect(readSettings(fileOf(extension, content))).rejects.toMatchObject({
      code: 'LUTRA_E_OPTION',
      message: expect.stringContaining('nested too deeply'),
    });
  });

  it('that are large, no text, or nothing at all are refused by name', async () => {
    const large = fileOf('yaml', `# ${'x'.repeat(300_000)}`);
    await expect(readSettings(large)).rejects.toMatchObject({ code: 'LUTRA_E_OPTION', where: large });
    const binary = fileOf('yaml', Uint8Array.of(0x61, 0xff, 0xfe));
    await expect(readSettings(binary)).rejects.toMatchObject({ code: 'LUTRA_E_OPTION', where: binary });
    await expect(readSettings(join(scratch, 'none.yaml'))).rejects.toMatchObject({ code: 'LUTRA_E_NOT_FOUND' });
    await expect(readSettings(scratch)).rejects.toMatchObject({ code: 'LUTRA_E_IO' });
    expect(await readSettings(fileOf('yaml', ''))).toBeNull();
  });
});
