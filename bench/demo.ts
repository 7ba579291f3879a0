/**
 * `npm run demo`: quantizes the model that comes with the sources to 3 and 2 bits by round-to-nearest and by GPTQ, measures
 * every result against the original, and lets the original and a quantized model tell a story.
 * Exits with 1 where GPTQ is no better than round-to-nearest at 2 bits.
 */
import { readFile } from 'node:fs/promises';
import { join, relative } from 'node:path';
import { table } from '../lib/cli/table.js';
import { type Evaluation, evaluate, loadModel, type Model, quantizeModel, readCheckpoint } from '../lib/index.js';

const root = join(import.meta.dirname, '..');
const fixtures = join(root, 'test', 'fixtures', 'models');
const original = join(fixtures, 'demo');
const calibration = { file: join(fixtures, 'demo-texts', 'calibration.txt'), separator: '<|endoftext|>' };
const evaluationText = join(fixtures, 'demo-texts', 'evaluation.txt');
const output = join(root, 'demo-output');

const widths = [3, 2] as const;
const methods = ['rtn', 'gptq'] as const;
const groupSize = 64;
const maxTokens = 12_000;
const prompt = 'Once upon a time, there was a little';
const storyOptions = { maxTokens: 90, temperature: 0.7, topP: 0.9, seed: 4 };

interface Row {
  name: string;
  bitsPerWeight: number;
  bytes: number;
  evaluation: Evaluation;
  seconds: number;
}

async function quantized(reference: Model, text: string, method: string, bits: number): Promise<Row> {
  const out = directoryOf(method, bits);
  const { seconds, bytes, bitsPerWeight } = await quantizeModel({
    model: original,
    out,
    recipe: { method, bits, groupSize },
    calibration,
    overwrite: true,
  });
  using model = await loadModel(out);
  const evaluation = await evaluate(model, { text, separator: calibration.separator, reference, maxTokens });
  return { name: `${method} W${bits}g${groupSize}`, bitsPerWeight, bytes, evaluation, seconds };
}

const directoryOf = (method: string, bits: number) => join(output, `${method}-w${bits}g${groupSize}`);

async function story(model: Model): Promise<string> {
  let text = prompt;
  for await (const piece of model.generate(prompt, storyOptions)) text += piece.text;
  return text.replaceAll('\n', ' ');
}

function cells({ name, bitsPerWeight, bytes, evaluation, seconds }: Row): string[] {
  const { perplexity, kl, top1Agreement } = evaluation;
  return [
    name,
    bitsPerWeight.toFixed(2),
    (bytes / 1e6).toFixed(2),
    perplexity.toFixed(3),
    kl ? `${kl.mean.toFixed(4)} ± ${(kl.standardError ?? 0).toFixed(4)}` : '-',
    top1Agreement === null ? '-' : (100 * top1Agreement).toFixed(1),
    seconds ? seconds.toFixed(1) : '-',
  ];
}

const text = await readFile(evaluationText, 'utf8');
using reference = await loadModel(original);
const plain = await evaluate(reference, { text, separator: calibration.separator, maxTokens });
const rows: Row[] = [];
for (const bits of widths)
  for (const method of methods) {
    process.stderr.write(`quantizing to ${bits} bits by ${method}\n`);
    rows.push(await quantized(reference, text, method, bits));
  }

const stored = await readCheckpoint(original);
const first: Row = { name: 'original F16', bitsPerWeight: 16, bytes: stored.bytes, evaluation: plain, seconds: 0 };
await stored.close();
const head = ['method', 'bits/weight', 'MB', 'perplexity', 'KL to original, nats', 'top-1 %', 'seconds'];
console.log(`\n${table(head, [first, ...rows].map(cells))}\n`);
console.log(`${plain.tokens} tokens in ${plain.documents} stories that the model itself told.\n`);

using small = await loadModel(directoryOf('gptq', 3));
console.log(`The original tells:\n  ${await story(reference)}\n`);
console.log(`At 3 bits (gptq) it tells:\n  ${await story(small)}\n`);
console.log(`The quantized models are in ${relative(process.cwd(), output) || '.'}`);

const klOf = (method: string) =>
  rows.find((row) => row.name.startsWith(`${method} W2`))?.evaluation.kl?.mean ?? Number.NaN;
if (!(klOf('gptq') < klOf('rtn'))) {
  console.error('GPTQ is no better than round-to-nearest at 2 bits: something is wrong');
  process.exitCode = 1;
}
