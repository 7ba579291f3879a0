/**
 * Quality of the solvers on small trained models: perplexity, KL divergence to the original and top-1 agreement of every
 * method at 4, 3 and 2 bits, group 32, over three calibration seeds.
 *
 *     npx tsx bench/quantize/quality.ts <models> <texts> [--out bench/results/quality.json]
 *
 * <models> holds one directory a model, <texts> tinystories-calibration.txt and tinystories-evaluation.txt. Prints the
 * table of the README, and per model and width the difference KL(rtn) - KL(gptq): its mean over the seeds and the standard
 * error of that mean.
 */
import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { machineCard } from '../../lib/benchmark/index.js';
import { table } from '../../lib/cli/table.js';
import { evaluate, loadModel, quantizeModel } from '../../lib/index.js';

const separator = '<|endoftext|>';
const widths = [4, 3, 2];
const groupSize = 32;
const seeds = [0, 1, 2];
const maxTokens = 20_000;

interface Result {
  model: string;
  method: string;
  bits: number;
  seed: number | null;
  bitsPerWeight: number | null;
  perplexity: number;
  perplexityStandardError: number | null;
  kl: number;
  klStandardError: number | null;
  top1Agreement: number | null;
  tokens: number;
}

const [models, texts, flag, file] = process.argv.slice(2);
if (!models || !texts) throw new Error('usage: tsx bench/quantize/quality.ts <models> <texts> [--out <file>]');
const calibration = { file: join(texts, 'tinystories-calibration.txt'), separator };
const text = await readFile(join(texts, 'tinystories-evaluation.txt'), 'utf8');
const work = await mkdtemp(join(tmpdir(), 'lutra-quality-'));
const results: Result[] = [];

async function measure(model: string, method: string, bits: number, seed: number | null): Promise<Result> {
  const source = join(models as string, model);
  const out = join(work, 'model');
  await quantizeModel({
    model: source,
    out,
    recipe: { method, bits, groupSize },
    calibration: seed === null ? undefined : { ...calibration, seed },
    overwrite: true,
  });
  using reference = await loadModel(source);
  using quantized = await loadModel(out);
  const found = await evaluate(quantized, { text, separator, reference, maxTokens });
  if (!found.kl) throw new Error('no divergence');
  return {
    model,
    method,
    bits,
    seed,
    bitsPerWeight: found.bitsPerWeight,
    perplexity: found.perplexity,
    perplexityStandardError: found.perplexityStandardError,
    kl: found.kl.mean,
    klStandardError: found.kl.standardError,
    top1Agreement: found.top1Agreement,
    tokens: found.tokens,
  };
}

const mean = (values: number[]) => values.reduce((sum, value) => sum + value, 0) / values.length;
function standardError(values: number[]): number {
  const centre = mean(values);
  return Math.sqrt(values.reduce((sum, value) => sum + (value - centre) ** 2, 0) / (values.length - 1) / values.length);
}

try {
  const rows: (string | number)[][] = [];
  const comparisons: (string | number)[][] = [];
  for (const entry of await readdir(models, { withFileTypes: true })) {
    if (!entry.isDirectory()) continue;
    const model = entry.name;
    using original = await loadModel(join(models, model));
    const plain = await evaluate(original, { text, separator, maxTokens });
    rows.push([model, 'original', plain.bitsPerParameter.toFixed(2), plain.perplexity.toFixed(3), '-', '-']);
    for (const bits of widths) {
      const rtn = await measure(model, 'rtn', bits, null);
      const gptq: Result[] = [];
      for (const seed of seeds) gptq.push(await measure(model, 'gptq', bits, seed));
      results.push(rtn, ...gptq);
      const row = (name: string, found: Result[]) => [
        model,
        `${name} W${bits}g${groupSize}`,
        (found[0]?.bitsPerWeight ?? 0).toFixed(2),
        mean(found.map((one) => one.perplexity)).toFixed(3),
        `${mean(found.map((one) => one.kl)).toFixed(4)} ± ${(found[0]?.klStandardError ?? 0).toFixed(4)}`,
        (100 * mean(found.map((one) => one.top1Agreement ?? Number.NaN))).toFixed(1),
      ];
      rows.push(row('rtn', [rtn]), row('gptq', gptq));
      const differences = gptq.map((one) => rtn.kl - one.kl);
      const error = standardError(differences);
      comparisons.push([
        model,
        `W${bits}g${groupSize}`,
        mean(differences).toFixed(4),
        error.toFixed(4),
        (mean(differences) / error).toFixed(1),
      ]);
      process.stderr.write(`${model} W${bits} done\n`);
    }
  }
  console.log(table(['model', 'method', 'bits/weight', 'perplexity', 'KL to original, nats', 'top-1 %'], rows));
  console.log(`\nKL(rtn) - KL(gptq), mean over ${seeds.length} calibration seeds:\n`);
  console.log(table(['model', 'width', 'difference', 'standard error', 'errors'], comparisons));
  if (flag === '--out' && file) await mkdir(dirname(file), { recursive: true });
  if (flag === '--out' && file)
    await writeFile(file, `${JSON.stringify({ machine: machineCard(), results }, null, 1)}\n`);
} finally {
  await rm(work, { recursive: true, force: true });
}
