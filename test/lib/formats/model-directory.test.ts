import { mkdirSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { readCheckpoint } from '../../../lib/formats/index.js';
import { scratchDirectory } from '../pipeline/random-model.js';

const scratch = scratchDirectory();
const at = (name: string) => join(scratch, name);

describe('what is no directory of a model is told for what it is', () => {
  test('nothing, a link to nothing, a file, no path at all', async () => {
    symlinkSync('/nowhere/at/all', at('link'));
    writeFileSync(at('file'), '');
    const cases: [unknown, object][] = [
      [at('none'), { code: 'LUTRA_E_NOT_FOUND', where: at('none'), message: expect.stringContaining('no such dir') }],
      [at('link'), { code: 'LUTRA_E_NOT_FOUND', where: at('link'), found: '/nowhere/at/all' }],
      [at('file'), { code: 'LUTRA_E_NOT_FOUND', where: at('file'), message: expect.stringContaining('a file') }],
      ['', { code: 'LUTRA_E_OPTION', found: "''" }],
      [undefined, { code: 'LUTRA_E_OPTION', found: 'undefined' }],
    ];
    for (const [directory, error] of cases)
      await expect(readCheckpoint(directory as string), String(directory)).rejects.toMatchObject(error);
  });

  test.each([
    ['gguf', ['model.Q4_K.gguf', 'pytorch_model.bin'], 'GGUF'],
    ['pickle', ['pytorch_model-00001-of-00002.bin'], 'safe_serialization'],
    ['cache', ['snapshots', 'blobs'], 'snapshots'],
    ['empty', [], 'A model is a directory'],
  ])('a directory of something else: %s', async (name, content, hint) => {
    for (const withConfig of [false, true]) {
      const directory = at(`${name}-${withConfig}`);
      mkdirSync(directory);
      for (const file of content) writeFileSync(join(directory, file), '');
      if (withConfig) writeFileSync(join(directory, 'config.json'), '{}');
      const error = { code: 'LUTRA_E_NOT_FOUND', hint: expect.stringContaining(hint) };
      await expect(readCheckpoint(directory)).rejects.toMatchObject(error);
    }
  });
});
