import { type ChildProcess, spawn } from 'node:child_process';
import { join } from 'node:path';

const root = join(import.meta.dirname, '..', '..', '..');
export const demo = join(root, 'test', 'fixtures', 'models', 'demo');
/** What `npx lutra` runs. */
export const program = join(root, 'dist', 'cli', 'main.js');
export const texts = join(demo, '..', 'demo-texts');

export interface Outcome {
  code: number | null;
  stdout: string;
  stderr: string;
}

export interface LutraOptions {
  env?: Record<string, string>;
  cwd?: string;
  /** Code to run in place of the command line: an ES module that may import from `dist`. */
  code?: string;
  /** Called with every piece of output. */
  onOutput?: (child: ChildProcess, stream: 'stdout' | 'stderr', text: string) => void;
}

/** Runs the command as a user does, in a process of its own. */
export function lutra(args: readonly string[], options: LutraOptions = {}): Promise<Outcome> {
  const { env, cwd = root, code, onOutput } = options;
  const what = code === undefined ? [program] : ['--input-type=module', '-e', code];
  const child = spawn(process.execPath, [...what, ...args], { cwd, env: { ...process.env, ...env } });
  const outcome: Outcome = { code: null, stdout: '', stderr: '' };
  for (const stream of ['stdout', 'stderr'] as const)
    child[stream].setEncoding('utf8').on('data', (text: string) => {
      outcome[stream] += text;
      onOutput?.(child, stream, text);
    });
  return new Promise((resolve, reject) => {
    child.once('error', reject);
    child.once('close', (status) => resolve({ ...outcome, code: status }));
  });
}
