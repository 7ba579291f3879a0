import { spawnSync } from 'node:child_process';
import { closeSync, existsSync, mkdirSync, mkdtempSync, openSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, describe, expect, it } from 'vitest';
import { withTinyModel } from '../../tiny-checkpoint.js';
import { demo, lutra, program, texts } from './lutra.js';
import { failureOf, resultOf } from './schemas.js';

const scratch = mkdtempSync(join(tmpdir(), 'lutra-cli-'));
const outputs = join(scratch, 'outputs');
const out = join(outputs, 'out');
mkdirSync(outputs);
afterEach(() => {
  for (const name of readdirSync(outputs)) rmSync(join(outputs, name), { recursive: true });
});
afterAll(() => rmSync(scratch, { recursive: true }));

const rtn = ['quantize', demo, '--out', out, '--method', 'rtn', '--bits', '3'];

describe('exit code 0', () => {
  it.each([
    [['--version']],
    [['--help']],
    [['quantize', '--help']],
    [['help', 'eval']],
    [['eval', '--help', '--json']],
  ])('%j prints text and no object', async (args) => {
    const { code, stdout, stderr } = await lutra(args);
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
    expect(stdout).not.toBe('');
    expect(stdout).not.toContain('"ok"');
  });

  it('is that of a command whose reader has seen enough', () => {
    const long = `"${process.execPath}" "${program}" inspect "${demo}" --tensors`;
    for (const command of [`${long} --json`, long, long.replace(/inspect.*/, '--help')]) {
      const { status, stdout, stderr } = spawnSync('bash', ['-c', `set -o pipefail; ${command} | head -c 10`], {
        encoding: 'utf8',
      });
      expect({ status, stderr, length: stdout.length }, command).toEqual({ status: 0, stderr: '', length: 10 });
    }
  });

  it('is that of an endless text whose reader has gone', async () => {
    await withEndlessModel(async (dir) => {
      let seen = 0;
      const { code, stderr } = await lutra(generateEndlessly(dir), {
        onOutput: (child, _, text) => {
          seen += text.length;
          child.stdout?.destroy();
        },
      });
      expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
      expect(seen).toBeGreaterThan(0);
    });
  });
});

describe('exit code 1', () => {
  it('comes with one line, and with a stack only when asked for', async () => {
    const plain = await lutra(['inspect', scratch]);
    expect(plain).toMatchObject({ code: 1, stdout: '' });
    expect(plain.stderr).toMatch(/^lutra inspect: LUTRA_E_NOT_FOUND [^\n]+\n$/);
    const verbose = await lutra(['inspect', scratch, '--verbose']);
    expect(verbose.code).toBe(1);
    expect(verbose.stderr.startsWith(plain.stderr)).toBe(true);
    expect(verbose.stderr).toMatch(/\n {4}at /);
  });

  const text = join(texts, 'evaluation.txt');
  const recipeFile = join(scratch, 'recipe.json');
  it.each<[string, string[], string]>([
    ['a text that is not there', ['eval', demo, '--text', join(scratch, 'none.txt')], 'LUTRA_E_NOT_FOUND'],
    ['a text that is a directory', ['eval', demo, '--text', scratch], 'LUTRA_E_IO'],
    ['a text that is none', ['eval', demo, '--text', join(demo, 'model.safetensors')], 'LUTRA_E_OPTION'],
    ['documents without a separator', ['eval', demo, '--text', text, '--convention', 'documents'], 'LUTRA_E_OPTION'],
    [
      'a separator that the text lacks',
      ['eval', demo, '--text', text, '--document-separator', '\\n\\n'],
      'LUTRA_E_OPTION',
    ],
    ['an unusable sampling option', ['generate', demo, '--prompt', 'x', '--top-p', '2'], 'LUTRA_E_OPTION'],
    ['an unusable group size', ['bench', '--shape', '64x64', '--group-size', '31'], 'LUTRA_E_GROUP_SIZE'],
    [
      'lines below a file',
      ['bench', '--shape', '64x64', '--lines', join(demo, 'config.json', 'x')],
      'LUTRA_E_NOT_FOUND',
    ],
    ['a plot that is a directory', ['bench', '--shape', '64x64', '--plot', scratch], 'LUTRA_E_IO'],
    ['more lanes than there are', ['bench', '--shape', '64x64', '--threads', '1024'], 'LUTRA_E_OPTION'],
    ['an output below a file', [...rtn.with(3, join(demo, 'config.json', 'out'))], 'LUTRA_E_EXISTS'],
    ['a method without its calibration', rtn.with(5, 'gptq'), 'LUTRA_E_OPTION'],
    ['an unknown method', rtn.with(5, 'magic'), 'LUTRA_E_METHOD'],
    ['an unknown width', rtn.with(7, '5'), 'LUTRA_E_BITS'],
    ['an output that is the input', rtn.with(3, demo), 'LUTRA_E_SAME_PATH'],
  ])('%s', async (_, args, expected) => {
    const { code, stdout, stderr } = await lutra([...args, '--json']);
    expect(code, stderr).toBe(1);
    expect(failureOf(stdout).error.code).toBe(expected);
    expect(stderr).toMatch(new RegExp(`^lutra ${args[0]}: ${expected} [^\\n]+\\n$`));
    expect(readdirSync(outputs)).toEqual([]);
  });

  it.each([
    ['no JSON', '{\n  "method": "rtn",\n\n}', ':4:1'],
    ['an array', '[]', ': recipe'],
    ['an unknown key', '{ "method": "rtn", "bits": 3, "groupSize": 64, "grupSize": 64 }', ': recipe.grupSize'],
    ['a slot that is none', '{ "method": "rtn", "bits": 3, "groupSize": 64, "lowRank": 8 }', ': recipe.lowRank'],
    ['a key that appears twice', '{ "method": "rtn", "bits": 3,\n"bits": 4, "groupSize": 64 }', ':2:7'],
  ])('a recipe file with %s, which is named with the place in it', async (_, content, place) => {
    writeFileSync(recipeFile, content);
    const { code, stdout, stderr } = await lutra(['quantize', demo, '--out', out, '--recipe', recipeFile, '--json']);
    expect(code, stderr).toBe(1);
    expect(failureOf(stdout).error).toMatchObject({ code: 'LUTRA_E_OPTION', where: recipeFile + place });
    expect(stderr.trim().split('\n')).toHaveLength(1);
    // Called by its name alone it is named once, too.
    const args = ['quantize', demo, '--out', out, '--recipe', 'recipe.json', '--json'];
    const relative = await lutra(args, { cwd: scratch });
    expect(failureOf(relative.stdout).error.where).toBe(`recipe.json${place}`);
  });

  it('names a recipe file that is not there as it was given', async () => {
    const args = ['quantize', demo, '--out', out, '--recipe', 'recipe.yaml', '--json'];
    expect(failureOf((await lutra(args, { cwd: scratch })).stdout).error.where).toBe('recipe.yaml');
  });

  it.each([
    ['--method', rtn.with(5, 'magic')],
    ['--bits', rtn.with(7, '5')],
    ['--group-size', [...rtn, '--group-size', '48']],
    ['--calibration', rtn.with(5, 'gptq')],
    ['--sequence-length', [...rtn, '--calibration', text, '--held-out', '1', '--sequence-length', '99999']],
  ])('a value that is refused for what the job is: it is called %s', async (option, args) => {
    expect(failureOf((await lutra([...args, '--json'])).stdout).error.where).toBe(option);
  });

  it.each([
    ['an option', ['--prompt', 'x', '--top-p', '2']],
    ['a prompt beyond the context', ['--prompt', 'a story '.repeat(2000)]],
  ])('%s that is refused before the prompt is printed', async (_, args) => {
    const { code, stdout, stderr } = await lutra(['generate', demo, ...args]);
    expect({ code, stdout }).toEqual({ code: 1, stdout: '' });
    expect(stderr).toMatch(/^lutra generate: LUTRA_E_OPTION [^\n]+\n$/);
  });

  it('an existing output, until --overwrite is given', async () => {
    expect((await lutra(rtn)).code).toBe(0);
    const refused = await lutra([...rtn, '--json']);
    expect(refused.code).toBe(1);
    expect(failureOf(refused.stdout).error.code).toBe('LUTRA_E_EXISTS');
    expect((await lutra([...rtn, '--overwrite'])).code).toBe(0);
    expect(readdirSync(outputs)).toEqual(['out']);
  });

  it('no binary for this machine, where LUTRA_PREBUILD is named among the tried paths', async () => {
    const { code, stdout } = await lutra(['doctor', '--json'], { env: { LUTRA_PREBUILD: outputs } });
    expect(code).toBe(1);
    const { error } = failureOf(stdout);
    expect(error.code).toBe('LUTRA_E_NO_BINARY');
    expect(error.where).toBe(outputs);
    expect(error.message).toContain(join(outputs, 'prebuilds'));
  });

  it.each([
    ['LUTRA_ISA', 'sse9', 'scalar'],
    ['LUTRA_ISA', 'AVX2', 'scalar'],
    ['LUTRA_THREADS', '0', '1 to 1024'],
    ['LUTRA_THREADS', 'two', '1 to 1024'],
  ])('%s=%s, which nothing runs with but the doctor', async (name, value, expected) => {
    const env = { [name]: value };
    for (const args of [rtn, ['bench', '--shape', '64x64', '--time', '1'], ['generate', demo, '--prompt', 'x']]) {
      const { code, stdout } = await lutra([...args, '--json'], { env });
      expect(code).toBe(1);
      const { error } = failureOf(stdout);
      expect(error).toMatchObject({ code: 'LUTRA_E_OPTION', where: name, found: `'${value}'` });
      expect(error.expected).toContain(expected);
    }
    expect(readdirSync(outputs)).toEqual([]);
    const { code, stdout } = await lutra(['doctor', '--json'], { env });
    expect(code).toBe(0);
    expect(JSON.parse(stdout).result.advice).toContainEqual(expect.stringContaining(`${name}=${value} cannot be`));
  });

  it.runIf(existsSync('/dev/full'))('a disk that has no room for the result', () => {
    const full = openSync('/dev/full', 'w');
    try {
      for (const json of [[], ['--json']]) {
        const args = [program, 'inspect', demo, ...json];
        const { status, stderr } = spawnSync(process.execPath, args, {
          encoding: 'utf8',
          stdio: ['ignore', full, 'pipe'],
        });
        expect(status).toBe(1);
        expect(stderr).toMatch(/^lutra inspect: LUTRA_E_DISK_FULL stdout: [^\n]+\n$/);
      }
    } finally {
      closeSync(full);
    }
  });
});

describe('exit code 2', () => {
  it.each([
    [[]],
    [['--json']],
    [['conquer']],
    [['quantize', 'model']],
    [['quantize', 'model', '--out', 'out']],
    [['quantize', 'model', '--out', 'out', '--method', 'rtn']],
    [['quantize', 'model', '--out', 'out', '--recipe', 'r.json', '--bits', '3']],
    [['quantize', 'model', '--out', 'out', '--method', 'gptq', '--bits', '3', '--samples', '0']],
    [['quantize', 'model', '--out', 'out', '--from-manifest', 'old', '--seed', '3']],
    [['inspect', 'model', '--unknown']],
    [['inspect', 'model', '--model', 'other']],
    [['eval', 'model']],
    [['eval', 'model', '--text', 't', '--convention', 'paragraphs']],
    [['compare', 'model', '--text', 't', '--out', 'out']],
    [['compare', 'model', '--recipes', 'rtn', '--text', 't', '--out', 'out', '--seeds', '0,x']],
    [['generate', 'model', '--prompt', 'x', '--temperature', 'warm']],
    [['inspect', 'model', 'model']],
    [['bench', '--shape', '4096']],
    [['bench', '--threads', '9999']],
    [['eval', 'model', '--text', 't', '--threads', '1025']],
    [['bench', '--shape', '0x5']],
    [['bench', '--shape', '64x64', '--model', 'llama-2-7b']],
    [['bench', '--bits', '2,x']],
    [['bench', '--mode', 'exact,quick']],
    [['bench', '--model', 'llama-9']],
    [['bench', '--caches', 'warm']],
  ])('%j', async (args) => {
    const { code, stdout, stderr } = await lutra(args);
    expect(code).toBe(2);
    if (args.includes('--json')) failureOf(stdout);
    else expect(stdout).toBe('');
    expect(stderr).toMatch(/^error: [^\n]+\n\(lutra <command> --help lists the options\)\n$|^Usage: /);
    expect(readdirSync(outputs)).toEqual([]);
  });
});

describe('exit code 70', () => {
  // No input is known that makes lutra fail this way, so the fault is put into a command's body.
  const code = (fault: string) => `
    import { runCommand } from ${JSON.stringify(program.replace('main.js', 'command.js'))};
    await runCommand('inspect', { json: true }, async () => { ${fault} }, String);`;

  it.each(['null.tensors;', 'throw "a string";', 'throw new RangeError("two\\nlines");'])('%s', async (fault) => {
    const { code: status, stdout, stderr } = await lutra([], { code: code(fault) });
    expect(status).toBe(70);
    expect(failureOf(stdout).error.code).toBe('LUTRA_E_INTERNAL');
    expect(stderr).toMatch(/^lutra inspect: [^\n]+ \(a fault of lutra: please report it\)\n$/);
  });
});

/** Runs `use` on a model that says nothing sensible for as long as it is asked to. */
const withEndlessModel = (use: (dir: string) => Promise<void>) =>
  withTinyModel({ config: { max_position_embeddings: 200_000, eos_token_id: null } }, async (dir) => {
    writeFileSync(join(dir, 'tokenizer_config.json'), '{ "bos_token": "<s>", "unk_token": "<unk>" }');
    await use(dir);
  });
const generateEndlessly = (dir: string) => [
  ...['generate', dir, '--prompt', 'abc', '--max-tokens', '100000'],
  ...['--temperature', '1', '--repetition-penalty', '1.1'],
];

describe('exit code 130', () => {
  const calibration = ['--calibration', join(texts, 'calibration.txt'), '--document-separator', '<|endoftext|>'];
  // As long as it takes to interrupt it, and to end the job after that.
  const samples = process.env.LUTRA_SANITIZED === '1' ? ['--samples', '8'] : [];
  const gptq = [...rtn.with(5, 'gptq'), ...calibration, ...samples];

  it.each(['SIGINT', 'SIGTERM', 'SIGHUP'] as const)(
    '%s during quantize leaves finished blocks alone',
    async (signal) => {
      let sent = false;
      const onOutput = (child: { kill(signal: NodeJS.Signals): boolean }, _: string, text: string) => {
        if (sent || !text.includes('layers.1.')) return;
        expect(readdirSync(outputs)).toEqual(['out.partial']);
        sent = child.kill(signal);
        // A closing terminal's comes twice.
        if (signal === 'SIGHUP') setTimeout(() => child.kill(signal), 2);
      };
      const { code, stdout, stderr } = await lutra([...gptq, '--no-resume', '--json'], { onOutput });
      expect(sent).toBe(true);
      // The second one may meet a process that has said everything and is about to end.
      expect(signal === 'SIGHUP' ? [130, null] : [130], stderr).toContain(code);
      expect(failureOf(stdout).error.code).toBe('ABORTED');
      const [said = '', command = ''] = stderr.trimEnd().split('\n').at(-1)!.split(': go on with: ');
      expect(said).toMatch(/^lutra quantize: interrupted\. [1-4] of 4 blocks are kept$/);
      expect(readdirSync(outputs)).toEqual(['out.partial']);
      // The very command, as a shell reads it.
      const words = spawnSync('bash', ['-c', command.replace(/^(npx lutra|node \S+)/, "printf '%s\\0'")], {
        encoding: 'utf8',
      }).stdout;
      const again = await lutra(words.split('\0').slice(0, -1));
      expect(again.code, again.stderr).toBe(0);
      expect(resultOf('quantize', again.stdout).resumedBlocks).toBe(Number(/(\d) of 4/.exec(said)?.[1]));
      expect(readdirSync(outputs)).toEqual(['out']);
    },
  );

  it('SIGINT before the first block of quantize is finished leaves nothing behind', async () => {
    let sent = false;
    const { code, stderr } = await lutra(gptq, {
      onOutput: (child, _, text) => {
        if (!sent && text.includes('layers.0.self_attn.q_proj')) sent = child.kill('SIGINT');
      },
    });
    expect({ sent, code }).toEqual({ sent: true, code: 130 });
    expect(stderr.trimEnd().split('\n').at(-1)).toBe('lutra quantize: interrupted');
    expect(readdirSync(outputs)).toEqual([]);
  });

  it('SIGINT during generate ends the text', async () => {
    await withEndlessModel(async (dir) => {
      let sent = false;
      const { code, stdout, stderr } = await lutra(generateEndlessly(dir), {
        onOutput: (child, stream, text) => {
          if (!sent && stream === 'stdout' && text.length > 3) sent = child.kill('SIGINT');
        },
      });
      expect(code).toBe(130);
      expect(stdout.length).toBeLessThan(100_000);
      expect(stderr).toBe('lutra generate: interrupted\n');
    });
  });
});
