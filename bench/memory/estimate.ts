/**
 * The memory that a plan estimates against what the job then takes, each job in a process of its own:
 *
 *     npx tsx bench/memory/estimate.ts <work directory> <shapes of synthetic-checkpoint.ts> <samples> <tokens> <method> …
 */
import { execFileSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { type QuantizationPlan, quantizeModel } from '../../lib/index.js';
import { writeSyntheticCheckpoint } from './synthetic-checkpoint.js';

const text = join(import.meta.dirname, '..', '..', 'test', 'fixtures', 'models', 'demo-texts', 'calibration.txt');

const [work, shapes, samples, tokens, ...methods] = process.argv.slice(2);
if (!work || !shapes || !methods[0])
  throw new Error('usage: tsx estimate.ts <work directory> <shapes> <samples> <tokens> <method> …');
const model = join(work, shapes);
if (methods[0] === '--part') {
  let plan: QuantizationPlan | undefined;
  const { peakRssBytes, seconds } = await quantizeModel({
    model,
    out: join(work, 'estimated'),
    recipe: { method: methods[1] ?? '', bits: 3, groupSize: 128 },
    calibration: { file: text, samples: Number(samples), sequenceLength: Number(tokens) },
    overwrite: true,
    onProgress: (event) => {
      if (event.phase === 'plan') plan = event.plan;
    },
  });
  console.log(JSON.stringify({ memory: plan?.memory, peakRssBytes, seconds }));
} else {
  if (!existsSync(join(model, 'config.json'))) await writeSyntheticCheckpoint(model, shapes);
  for (const method of methods) {
    const args = [
      ...process.execArgv,
      import.meta.filename,
      work,
      shapes,
      samples ?? '',
      tokens ?? '',
      '--part',
      method,
    ];
    const { memory, peakRssBytes, seconds } = JSON.parse(execFileSync(process.execPath, args, { encoding: 'utf8' }));
    const [estimated, measured] = [memory.peakBytes, peakRssBytes].map((bytes) => `${(bytes / 1e6).toFixed(0)} MB`);
    const ratio = (memory.peakBytes / peakRssBytes).toFixed(2);
    console.log(
      `${method}: estimated ${estimated} ${memory.at}, measured ${measured}, ${ratio}; ${seconds.toFixed(0)} s`,
    );
    console.log(JSON.stringify(memory.parts));
  }
}
