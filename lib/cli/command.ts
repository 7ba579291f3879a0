import { readFileSync } from 'node:fs';
import { open, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { type Command, CommanderError, InvalidArgumentError, Option } from 'commander';
import { LutraError, lutraError, onOneLine } from '../errors.js';
import { onFile, readToEnd } from '../formats/index.js';
import { maxThreads } from '../ops/index.js';

/** Exit codes of the command line, as docs/cli.md lists them. */
export const exitCodes = { ok: 0, failed: 1, usage: 2, partly: 3, bug: 70, interrupted: 130 } as const;

/** What every command takes besides its own options. */
export interface CommonOptions {
  json?: boolean;
  verbose?: boolean;
}

/** What a running command may use: Ctrl-C and its like as a signal, and whether stdout is reserved for one JSON object. */
export interface Invocation {
  signal: AbortSignal;
  json: boolean;
}

/** The version in the package's own package.json. */
export const version: string = JSON.parse(
  readFileSync(join(fileURLToPath(import.meta.url), '..', '..', '..', 'package.json'), 'utf8'),
).version;

/** Adds the options that every command has. */
export function withCommonOptions(command: Command): Command {
  return command
    .option('--json', 'print exactly one JSON object on stdout')
    .option('--verbose', 'print the stack of an error');
}

/**
 * Runs one command to its exit code: `body` computes the result, `render` turns it into text for people. stdout carries
 * the result and nothing else; progress and errors go to stderr.
 *
 * @param exitCode of a result; 0 unless told otherwise.
 */
export async function runCommand<Result>(
  name: string,
  options: CommonOptions,
  body: (invocation: Invocation) => Promise<Result>,
  render: (result: Result) => string,
  exitCode: (result: Result) => number = () => exitCodes.ok,
): Promise<void> {
  const controller = new AbortController();
  const interrupt = () => controller.abort(new Interrupted());
  process.once('SIGINT', interrupt);
  process.once('SIGTERM', interrupt);
  // A closing terminal sends it twice, the shell and the kernel. The listener stays, so that the second one cuts neither
  // the clean-up nor the exit short.
  process.on('SIGHUP', interrupt);
  try {
    const result = await body({ signal: controller.signal, json: options.json === true });
    const text = options.json ? JSON.stringify({ lutra: version, command: name, ok: true, result }) : render(result);
    if (text) await print(`${text}\n`);
    process.exitCode = exitCode(result);
  } catch (error) {
    await fail(name, options, error);
  } finally {
    process.off('SIGINT', interrupt);
    process.off('SIGTERM', interrupt);
  }
}

class Interrupted extends Error {
  constructor() {
    super('interrupted');
    this.name = 'AbortError';
  }
}

/** What `print` rejects with when nobody reads stdout any more (`| head`): a reason to stop, not a failure. */
class ReaderGone extends Error {}

/** Reports a failure and sets the exit code that belongs to it. */
export async function fail(name: string, options: CommonOptions, error: unknown): Promise<void> {
  process.exitCode = exitCodeOf(error);
  // Also what ends --help and --version: their text is out.
  if (process.exitCode === exitCodes.ok) return;
  const message = messageOf(error);
  const details = error instanceof LutraError ? error : null;
  if (options.json) {
    const code = details?.code ?? (error instanceof CommanderError ? 'LUTRA_E_OPTION' : codeOfOther(error));
    const { where = null, found = null, expected = null, items = null, hint = null } = details ?? {};
    const body = { code, message, where, found, expected, items, hint };
    // What stdout does not take, stderr still tells.
    await print(`${JSON.stringify({ lutra: version, command: name, ok: false, error: body })}\n`).catch(() => {});
  }
  // Commander has printed a usage error already.
  if (error instanceof CommanderError) return;
  const bug = process.exitCode === exitCodes.bug ? ' (a fault of lutra: please report it)' : '';
  const prefix = details ? `${details.code} ` : '';
  process.stderr.write(`lutra ${name}: ${prefix}${message}${bug}\n`);
  if (options.verbose && error instanceof Error) process.stderr.write(`${error.stack ?? ''}\n`);
}

/** Without the "error: " that commander puts in front of its messages; only the typed errors know what is worth several lines. */
function messageOf(error: unknown): string {
  if (error instanceof LutraError) return error.message;
  const text = error instanceof Error ? error.message : String(error);
  if (error instanceof CommanderError && error.code === 'commander.help') return 'no command is given';
  return onOneLine(text.replace(/^error: /, ''));
}

function exitCodeOf(error: unknown): number {
  if (error instanceof ReaderGone) return exitCodes.ok;
  if (error instanceof Interrupted) return exitCodes.interrupted;
  if (error instanceof CommanderError) return error.exitCode === 0 ? exitCodes.ok : exitCodes.usage;
  if (error instanceof LutraError) return error.code === 'LUTRA_E_INTERNAL' ? exitCodes.bug : exitCodes.failed;
  return exitCodes.bug;
}

const codeOfOther = (error: unknown) => (error instanceof Interrupted ? 'ABORTED' : 'LUTRA_E_INTERNAL');

/**
 * Writes to stdout and waits until it is out.
 *
 * @throws `ReaderGone`, which ends a command quietly; `LUTRA_E_DISK_FULL`, `LUTRA_E_IO` where stdout is a file
 */
export function print(text: string): Promise<void> {
  const write = () =>
    new Promise<void>((resolve, reject) => {
      process.stdout.write(text, (error) => {
        if (!error) resolve();
        else reject((error as NodeJS.ErrnoException).code === 'EPIPE' ? new ReaderGone() : error);
      });
    });
  return onFile('stdout', write);
}

/** Parses an option that is a whole number from `least` to `most`. */
export const wholeNumber =
  (least: number, most = Number.MAX_SAFE_INTEGER) =>
  (text: string): number => {
    const value = Number(text);
    if (!/^-?\d+$/.test(text) || !Number.isSafeInteger(value) || value < least || value > most) {
      const range = most === Number.MAX_SAFE_INTEGER ? `of at least ${least}` : `from ${least} to ${most}`;
      throw new InvalidArgumentError(`a whole number ${range} is needed.`);
    }
    return value;
  };

/** Parses a comma-separated list. */
export const listOf =
  <Value>(parse: (text: string) => Value) =>
  (text: string): Value[] =>
    text.split(',').map((item) => parse(item.trim()));

/** `--threads`, the same for every command that computes. */
export const threadsOption = (): Option =>
  new Option('--threads <n>', 'lanes at most, 0 for all').argParser(wholeNumber(0, maxThreads)).default(0);

/** `--device`, the same for every command that runs a model; `loadModel` checks it. */
export const deviceOption = (): Option =>
  new Option('--device <name>', 'where to compute: cpu, or cuda or cuda:N').default('cpu');

/** Parses an option that is a number of at least `least`. */
export const realNumber =
  (least: number) =>
  (text: string): number => {
    const value = Number(text);
    if (text.trim() === '' || !Number.isFinite(value) || value < least)
      throw new InvalidArgumentError(`a number of at least ${least} is needed.`);
    return value;
  };

const units: Readonly<Record<string, number>> = {
  B: 1,
  KB: 1e3,
  MB: 1e6,
  GB: 1e9,
  TB: 1e12,
  KIB: 2 ** 10,
  MIB: 2 ** 20,
  GIB: 2 ** 30,
  TIB: 2 ** 40,
};

/** Parses a number of bytes with a unit, such as 4GB or 1.5GiB. */
export function memorySize(text: string): number {
  const [, number = '', unit = ''] = /^(\d+(?:\.\d+)?)\s*([a-z]+)$/i.exec(text.trim()) ?? [];
  const bytes = Math.round(Number(number) * (units[unit.toUpperCase()] ?? Number.NaN));
  if (number !== '' && Number.isSafeInteger(bytes) && bytes > 0) return bytes;
  throw new InvalidArgumentError('a size such as 4GB or 2GiB is needed.');
}

/** The text of a file. @throws `LUTRA_E_NOT_FOUND`, `LUTRA_E_IO`, and `LUTRA_E_OPTION` where it is not UTF-8 */
export async function readText(path: string): Promise<string> {
  const bytes = await onFile(path, () => readToEnd(path));
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes);
  } catch (cause) {
    throw lutraError('LUTRA_E_OPTION', { message: 'the file is not UTF-8 text', where: path, cause });
  }
}

/**
 * Refuses a path that cannot be written, before the work whose result it is to hold. Leaves what is there as it is.
 *
 * @throws `LUTRA_E_NOT_FOUND`, `LUTRA_E_IO`
 */
export async function checkWritable(path: string): Promise<void> {
  await onFile(path, async () => {
    const found = await stat(path).catch(() => null);
    // Opening a pipe would tell its reader that something comes.
    if (found && !found.isFile() && !found.isDirectory()) return;
    const file = await open(path, 'a');
    await file.close();
    if (!found) await rm(path);
  });
}
