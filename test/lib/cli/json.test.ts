import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { z } from 'zod';
import { demo, lutra, texts } from './lutra.js';
import {
  type CommandName,
  failureOf,
  fieldNames,
  quantizationPlan,
  resultOf,
  results,
  verification,
} from './schemas.js';

const scratch = mkdtempSync(join(tmpdir(), 'lutra-cli-'));
const quantized = join(scratch, 'quantized');
const calibration = join(texts, 'calibration.txt');
const evaluation = join(texts, 'evaluation.txt');
const separator = ['--document-separator', '<|endoftext|>'];
afterAll(() => rmSync(scratch, { recursive: true }));

/** Runs a command that must succeed, and parses what it prints. */
async function json<Name extends CommandName>(command: Name, ...args: string[]) {
  const { code, stdout, stderr } = await lutra([command, ...args, '--json']);
  expect(code, stderr).toBe(0);
  return { result: resultOf(command, stdout), stderr };
}

/** What commands print with some options in place of their result. */
const besides: Partial<Record<CommandName, z.ZodType>> = { inspect: verification, quantize: quantizationPlan };

describe('--json', () => {
  beforeAll(async () => {
    const options = ['--method', 'gptq', '--bits', '3', '--group-size', '64', '--calibration', calibration];
    const windows = ['--samples', '4', '--sequence-length', '64', ...separator];
    const { result, stderr } = await json('quantize', demo, '--out', quantized, ...options, ...windows);
    expect(result.out).toBe(quantized);
    expect(result.layers).toHaveLength(28);
    for (const layer of result.layers) {
      expect(layer).toMatchObject({ bits: 3, groupSize: 64, tokens: 256 });
      expect(layer.relativeError).toBeLessThanOrEqual(layer.rtnError);
      expect(stderr).toContain(layer.name);
    }
    expect(result.bytes).toBeLessThanOrEqual(statSync(join(quantized, 'model.safetensors')).size);
  });

  it('quantize --dry-run prints the plan, and a job that may not have the memory is refused', async () => {
    const out = join(scratch, 'planned');
    const options = ['--out', out, '--method', 'gptq', '--bits', '3', '--group-size', '64', '--samples', '2'];
    const job = ['quantize', demo, ...options, '--calibration', calibration];
    const { code, stdout } = await lutra([...job, '--dry-run', '--max-memory', '8GB', '--json']);
    expect(code).toBe(0);
    const { memory, time, blocks } = quantizationPlan.parse(JSON.parse(stdout).result);
    expect(memory.limitBytes).toBe(8e9);
    expect(time?.seconds).toBeGreaterThan(0);
    const people = await lutra([...job, '--dry-run']);
    expect(people.stdout).toMatch(new RegExp(`^plan: ${blocks.length} blocks with 28 layers, `));
    expect(people.stdout).toMatch(/^time: about /m);
    const refused = await lutra([...job, '--max-memory', '10MiB', '--json']);
    expect(refused.code).toBe(1);
    expect(failureOf(refused.stdout).error).toMatchObject({ code: 'LUTRA_E_MEMORY', expected: 'at most 10.49 MB' });
    for (const size of ['4', 'GB', '-1GB', '1 parsec'])
      expect((await lutra([...job, '--max-memory', size])).code).toBe(2);
    expect(existsSync(out)).toBe(false);
  });

  it('inspect tells what a checkpoint holds', async () => {
    const { result: plain } = await json('inspect', demo);
    expect(plain).toMatchObject({ modelType: 'llama', bitsPerWeight: null, quantization: null });
    expect(plain.tensors.reduce((sum, { bytes }) => sum + bytes, 0)).toBe(plain.bytes);
    const { result } = await json('inspect', quantized);
    expect(result.quantization).toMatchObject({ formatVersion: 1, bits: 3, groupSize: 64, symmetric: false });
    expect(result.parameters).toBe(plain.parameters);
    expect((8 * result.bytes) / result.parameters).toBeCloseTo(result.bitsPerParameter, 9);
  });

  it('eval measures by documents, against a reference', async () => {
    const options = ['--text', evaluation, ...separator, '--max-tokens', '600', '--reference', demo];
    const { result } = await json('eval', quantized, ...options);
    expect(result).toMatchObject({ convention: 'documents', mode: 'exact' });
    expect(result.textSha256).toBe(createHash('sha256').update(readFileSync(evaluation)).digest('hex'));
    expect(result.kl?.mean).toBeGreaterThan(0);
    expect(result.kl?.max).toBeGreaterThanOrEqual(result.kl?.p999 ?? Number.NaN);
    expect(result.top1Agreement).toBeLessThanOrEqual(1);
    expect(result.tokens).toBeGreaterThanOrEqual(600 - result.documents);
  });

  it('eval measures by windows, whose one window has no standard error', async () => {
    const options = ['--text', evaluation, '--context', '64', '--max-tokens', '1', '--mode', 'fast'];
    const { result } = await json('eval', demo, ...options);
    expect(result).toMatchObject({ convention: 'windows', context: 64, documents: 1, tokens: 63, mode: 'fast' });
    expect(result).toMatchObject({ perplexityStandardError: null, kl: null, top1Agreement: null, bitsPerWeight: null });
  });

  it('generate gives the text that the same seed streams', async () => {
    const options = ['--prompt', 'Once upon a time', '--max-tokens', '40', '--temperature', '1', '--seed', '5'];
    const { result, stderr } = await json('generate', quantized, ...options);
    expect(stderr).toBe('');
    expect(result.text).not.toBe('');
    const pieces: string[] = [];
    const onOutput = (_: unknown, stream: string, text: string) => void (stream === 'stdout' && pieces.push(text));
    const streamed = await lutra(['generate', quantized, ...options], { onOutput });
    expect(streamed).toMatchObject({ code: 0, stdout: `Once upon a time${result.text}\n`, stderr: '' });
    expect(pieces.length, 'the text comes in pieces').toBeGreaterThan(1);
    const other = await json('generate', quantized, ...options.with(-1, '6'));
    expect(other.result.text).not.toBe(result.text);
  });

  it('bench times every kind of weights in every mode', async () => {
    const [lines, plot] = [join(scratch, 'bench.jsonl'), join(scratch, 'bench.svg')];
    const cases = ['--shape', '96x160', '--group-size', '32', '--kind', 'uniform,planes', '--rank', '5', '--bits', '3'];
    const { result } = await json('bench', ...cases, '--time', '1', '--lines', lines, '--plot', plot);
    expect(result.rows).toHaveLength(6);
    const bounds = { exact: 1e-12, accurate: 1e-7, fast: 2e-4 };
    for (const row of result.rows) {
      expect(row).toMatchObject({ by: 'lutra', shape: '96x160', groupSize: 32, tokens: 1, caches: 'hot', matrices: 1 });
      expect(row.normalizedMeanSquaredError, row.mode).toBeLessThan(bounds[row.mode]);
    }
    const [machine, ...rows] = readFileSync(lines, 'utf8')
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line));
    expect(machine).toEqual({ machine: result.machine });
    expect(rows).toEqual(result.rows);
    expect(readFileSync(plot, 'utf8')).toMatch(/^<svg .*<\/svg>\n$/s);
  });

  it('doctor tells the machine', async () => {
    const { result } = await json('doctor');
    expect(result.node).toBe(process.version);
    expect(result.cuda.built).toBe(result.cuda.state !== 'notBuilt');
  });

  it('inspect --verify ends with 3 where something differs, and quantize --from-manifest makes the directory again', async () => {
    const again = join(scratch, 'again');
    const verify = async (directory: string) => {
      const { code, stdout } = await lutra(['inspect', directory, '--verify', '--model', demo, '--json']);
      return { code, ...verification.parse(JSON.parse(stdout).result) };
    };
    await json('quantize', demo, '--out', again, '--from-manifest', quantized, '--calibration', calibration);
    for (const name of ['model.safetensors', 'config.json', 'manifest.json'])
      expect(readFileSync(join(again, name)).equals(readFileSync(join(quantized, name))), name).toBe(true);
    expect(await verify(again)).toMatchObject({ code: 0, intact: true, differences: [] });
    writeFileSync(join(again, 'notes.txt'), '');
    expect(await verify(again)).toMatchObject({ code: 3, intact: false, differences: [{ name: 'notes.txt' }] });
    const { stdout } = await lutra(['inspect', again, '--verify']);
    expect(stdout).toMatch(/^file +notes\.txt +extra /m);
    expect(stdout).toMatch(/: 1 difference in \d+ files, \d+ tensors\n$/);
  });

  it('report writes one page, and replaces none unasked', async () => {
    const page = join(scratch, 'page.html');
    const { result } = await json('report', quantized, '--out', page, '--model', demo);
    expect(result).toMatchObject({ page, layers: 28 });
    expect(readFileSync(page, 'utf8')).toMatch(/^<!DOCTYPE html>\n.*<\/html>\n$/s);
    const again = await lutra(['report', quantized, '--out', page]);
    expect(again).toMatchObject({ code: 1, stderr: expect.stringContaining('LUTRA_E_EXISTS') });
    await json('report', quantized, '--out', page, '--overwrite');
    // What is no page stays, and a page about another model is none.
    const text = join(scratch, 'text.html');
    writeFileSync(text, 'mine');
    const other = await lutra(['report', quantized, '--out', text, '--overwrite']);
    expect(other).toMatchObject({ code: 1, stderr: expect.stringContaining('LUTRA_E_EXISTS') });
    expect(readFileSync(text, 'utf8')).toBe('mine');
    const wrong = await lutra(['report', quantized, '--out', page, '--overwrite', '--model', quantized]);
    expect(wrong).toMatchObject({ code: 1, stderr: expect.stringContaining('LUTRA_E_INPUT_CHANGED') });
    const pipe = join(scratch, 'pipe');
    execFileSync('mkfifo', [pipe]);
    const refused = await lutra(['report', quantized, '--out', pipe, '--overwrite']);
    expect(refused).toMatchObject({ code: 1, stderr: expect.stringContaining('LUTRA_E_EXISTS') });
    expect(statSync(pipe).isFIFO()).toBe(true);
  });

  it('a failure is one object too, and one line on stderr', async () => {
    const { code, stdout, stderr } = await lutra(['inspect', join(scratch, 'nothing'), '--json']);
    expect(code).toBe(1);
    const { command, error } = failureOf(stdout);
    expect(command).toBe('inspect');
    expect(error).toMatchObject({ code: 'LUTRA_E_NOT_FOUND', where: join(scratch, 'nothing') });
    expect(stderr).toMatch(/^lutra inspect: LUTRA_E_NOT_FOUND [^\n]+\n$/);
  });

  it('a usage error is one object too', async () => {
    const { code, stdout } = await lutra(['eval', demo, '--json']);
    expect(code).toBe(2);
    expect(failureOf(stdout)).toMatchObject({ command: 'eval', error: { code: 'LUTRA_E_OPTION' } });
    expect(failureOf(stdout).error.message).toBe("required option '--text <file>' not specified");
  });

  it.each([
    ['recipe.json', '{ "method": "rtn", "bits": 2, "groupSize": 32, "symmetric": true }'],
    ['recipe.yaml', 'solver: { method: rtn }\ngrid:\n  bits: 2\n  groupSize: 32\n  symmetric: true\n'],
  ])('%s and its shorthand make the same checkpoint, and are told in full', async (name, content) => {
    const file = join(scratch, name);
    writeFileSync(file, content);
    const [fromFile, fromOptions] = [join(scratch, `from-${name}`), join(scratch, `from-options-${name}`)];
    await json('quantize', demo, '--out', fromFile, '--recipe', file);
    const shorthand = ['--method', 'rtn', '--bits', '2', '--group-size', '32', '--symmetric', '--threads', '1'];
    await json('quantize', demo, '--out', fromOptions, ...shorthand);
    for (const name of ['model.safetensors', 'config.json', 'manifest.json'])
      expect(readFileSync(join(fromFile, name)).equals(readFileSync(join(fromOptions, name))), name).toBe(true);
    const { result } = await json('inspect', fromFile);
    expect(result.quantization?.recipe).toMatchObject({ solver: { method: 'rtn' }, overrides: [], lowRank: null });
  });
});

describe('docs/cli.md', () => {
  const page = readFileSync(join(import.meta.dirname, '..', '..', '..', 'docs', 'cli.md'), 'utf8');
  const sections = new Map(
    page.split(/^### /m).map((section) => {
      const [name = '', ...lines] = section.split('\n');
      return [name, lines.join('\n').split(/^## /m)[0] ?? ''];
    }),
  );

  it.each(Object.keys(results) as CommandName[])('names every field of %s, and no other', (command) => {
    const section = sections.get(command) ?? '';
    const fields = [...fieldNames(results[command]), ...(command in besides ? fieldNames(besides[command]!) : [])];
    // What a comparison repeats of other commands is told there.
    const told = command === 'compare' ? ['quantize', 'eval'].map((other) => sections.get(other)) : [];
    for (const name of fields) expect([section, ...told].join(''), name).toMatch(new RegExp(`\\b${name}\\b`));
    const rows = [...section.matchAll(/^\| ([\w, ]+) \| (?!type)/gm)].flatMap(([, names = '']) => names.split(', '));
    for (const name of rows) expect(fields).toContain(name);
  });
});
