import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { afterAll, describe, expect, it } from 'vitest';
import { checkWellFormed } from '../report/well-formed.js';
import { demo, lutra, program, texts } from './lutra.js';
import { comparison, failureOf, resultOf } from './schemas.js';

const scratch = mkdtempSync(join(tmpdir(), 'lutra-compare-'));
afterAll(() => rmSync(scratch, { recursive: true }));

const separator = '<|endoftext|>';
const measured = ['--text', join(texts, 'evaluation.txt'), '--document-separator', separator, '--max-tokens', '300'];
const calibrated = ['--calibration', join(texts, 'calibration.txt'), '--samples', '4', '--sequence-length', '64'];
const compare = (out: string, recipes: string, ...more: string[]) =>
  lutra(['compare', demo, '--recipes', recipes, ...measured, '--out', out, '--group-size', '64', ...more]);
const stored = (out: string) => comparison.parse(JSON.parse(readFileSync(join(out, 'compare.json'), 'utf8')));

describe('lutra compare', () => {
  it('runs methods, widths and seeds, and files with what they leave open', async () => {
    const out = join(scratch, 'sweep');
    const file = join(scratch, 'damped.yaml');
    writeFileSync(file, 'method: gptq\nbits: 3\ndamping: 0.1\n');
    const more = ['--bits', '2,4', '--seeds', '0,5', '--held-out', '2', '--json'];
    const { code, stdout, stderr } = await compare(out, `rtn,${file}`, ...calibrated, ...more);
    expect(code, stderr).toBe(0);
    const result = resultOf('compare', stdout);
    expect(stored(out)).toEqual(result);
    expect(result.runs.map(({ label, seed }) => [label, seed])).toEqual([
      ['rtn W2g64', null],
      ['rtn W4g64', null],
      ['damped W3g64', 0],
      ['damped W3g64', 5],
    ]);
    const kl = result.runs.map((run) => run.measured?.texts[0]?.kl?.mean ?? Number.NaN);
    expect(kl[1]).toBeLessThan(kl[0]!);
    expect(kl[2]).not.toBe(kl[3]);
    for (const { measured: found } of result.runs) {
      const { before, after, error } = found!.weights;
      const totals = [before, after, error].map(({ counts }) => counts.reduce((sum, count) => sum + count, 0));
      expect(new Set(totals).size).toBe(1);
      for (const layer of found!.layers) expect(layer.heldOutError).toBeGreaterThan(0);
    }
    const page = readFileSync(join(out, 'compare.html'), 'utf8');
    checkWellFormed(page.replace('<!DOCTYPE html>', ''));
    expect(page).not.toMatch(/http|<script|NaN|Infinity|undefined|\[object/i);
    expect(readdirSync(out).sort()).toEqual(['compare.html', 'compare.json']);
  });

  it('goes on after a recipe that fails, tells it with its code, and ends with 3', async () => {
    const out = join(scratch, 'failing');
    const file = join(scratch, 'impossible.json');
    writeFileSync(file, '{ "method": "hqq", "symmetric": true }');
    const { code, stdout } = await compare(out, `${file},gptq,rtn`, '--bits', '3');
    expect(code).toBe(3);
    expect(stdout).toMatch(/^! impossible W3g64: LUTRA_E_OPTION /m);
    expect(stdout).toMatch(/^! gptq W3g64, seed 0: LUTRA_E_OPTION .*calibration/m);
    expect(stdout).toMatch(/^rtn W3g64 +3\.\d+ +\d/m);
    expect(stored(out).runs.map(({ measured: found }) => found !== null)).toEqual([false, false, true]);
    expect(readFileSync(join(out, 'compare.html'), 'utf8')).toContain('LUTRA_E_OPTION');
  });

  it('keeps the runs that are through when it is interrupted, and nothing else', async () => {
    const out = join(scratch, 'interrupted');
    // The command interrupts itself: a test that hears of the layer late would find it at its end.
    const interrupted = `
      const write = process.stderr.write.bind(process.stderr);
      let sent = false;
      process.stderr.write = (text, ...more) => {
        if (!sent && /hqq.*relative error/.test(text)) sent = process.kill(process.pid, 'SIGINT');
        return write(text, ...more);
      };
      await import(${JSON.stringify(pathToFileURL(program).href)});`;
    const { code, stderr } = await lutra(
      [
        'compare',
        demo,
        '--recipes',
        'rtn,hqq',
        ...measured.slice(0, 4),
        '--out',
        out,
        '--bits',
        '3',
        '--group-size',
        '64',
      ],
      { code: interrupted },
    );
    expect(code, stderr).toBe(130);
    expect(stored(out).runs.map(({ label }) => label)).toEqual(['rtn W3g64']);
    expect(readdirSync(out).sort()).toEqual(['compare.html', 'compare.json']);
  });

  it.each<[string, string, string[], string]>([
    ['two recipes of one name', 'rtn,rtn', [], 'LUTRA_E_OPTION'],
    ['a recipe file that is not there', 'none.yaml', [], 'LUTRA_E_NOT_FOUND'],
    ['a text that is not there', 'rtn', ['--held-out-text', 'none.txt'], 'LUTRA_E_NOT_FOUND'],
  ])('refuses %s before any work', async (_, recipes, more, expected) => {
    const out = join(scratch, 'refused');
    const { code, stdout } = await compare(out, recipes, ...more, '--json');
    expect(code).toBe(1);
    expect(failureOf(stdout).error.code).toBe(expected);
    expect(existsSync(join(out, 'compare.json'))).toBe(false);
  });

  it('keeps an earlier comparison until it may be overwritten', async () => {
    const out = join(scratch, 'kept');
    mkdirSync(out);
    writeFileSync(join(out, 'compare.json'), 'earlier');
    const refused = await compare(out, 'rtn', '--json');
    expect(failureOf(refused.stdout).error.code).toBe('LUTRA_E_EXISTS');
    expect(readFileSync(join(out, 'compare.json'), 'utf8')).toBe('earlier');
    expect((await compare(out, 'rtn', '--bits', '4', '--overwrite')).code).toBe(0);
    expect(stored(out).runs).toHaveLength(1);
  });
});
