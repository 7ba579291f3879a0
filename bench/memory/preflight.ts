/**
 * How long the checks before a job take at the shapes of Llama-2-7B, on a sparse checkpoint, for every planted mistake and for a
 * job without one:
 *
 *     npx tsx bench/memory/preflight.ts <work directory>
 */
import { mkdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { LutraError, planQuantization, type QuantizationJob } from '../../lib/index.js';
import { type Mistake, mistakes, plantMistake } from './planted-mistakes.js';

const [, , work] = process.argv;
if (!work) throw new Error('usage: tsx bench/memory/preflight.ts <work directory>');

const none: Mistake = { name: 'no mistake', code: 'LUTRA_E_INTERNAL' };
const rows: { name: string; expected: string; found: string; seconds: number }[] = [];
for (const mistake of [none, ...mistakes]) {
  const folder = join(work, `planted-${rows.length}`);
  mkdirSync(folder, { recursive: true });
  const job = await plantMistake(mistake, folder, 'llama-2-7b');
  const begin = performance.now();
  const found = await outcomeOf(job);
  const seconds = (performance.now() - begin) / 1000;
  rows.push({ name: mistake.name, expected: mistake === none ? 'planned' : mistake.code, found, seconds });
  rmSync(folder, { recursive: true });
}
for (const { name, expected, found, seconds } of rows)
  console.log(`${seconds.toFixed(3)} s  ${name}: ${found}${found === expected ? '' : `, expected ${expected}`}`);
const slowest = Math.max(...rows.map(({ seconds }) => seconds));
console.log(
  `${rows.filter(({ found, expected }) => found === expected).length} of ${rows.length}, slowest ${slowest.toFixed(3)} s`,
);

async function outcomeOf(job: QuantizationJob): Promise<string> {
  try {
    await planQuantization(job);
    return 'planned';
  } catch (error) {
    return error instanceof LutraError ? error.code : String(error);
  }
}
