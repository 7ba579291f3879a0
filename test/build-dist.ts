import { execFileSync } from 'node:child_process';
import { existsSync, readdirSync, statSync } from 'node:fs';
import { join } from 'node:path';

const root = join(import.meta.dirname, '..');

/** Compiles lib into dist where a source is newer: tests that run the package as users do must never run an old one. */
export default function buildDist(): void {
  const sources = readdirSync(join(root, 'lib'), { recursive: true, encoding: 'utf8' })
    .filter((name) => name.endsWith('.ts'))
    .map((name) => join(root, 'lib', name));
  const compiled = join(root, 'dist', 'index.js');
  const changed = (file: string) => statSync(file).mtimeMs;
  if (existsSync(compiled) && sources.every((file) => changed(file) <= changed(compiled))) return;
  execFileSync(join(root, 'node_modules', '.bin', 'tsc'), ['-p', 'tsconfig.build.json'], {
    cwd: root,
    stdio: ['ignore', 'inherit', 'inherit'],
  });
}
