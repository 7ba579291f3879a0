/**
 * Kills quantization jobs on the embedded model at moments all over the job and runs each again:
 *
 *     npx tsx test/adversarial/kill/run.ts [number of kills, 200] [seed, 1] [calibration windows, 16]
 *
 * Tells how far the jobs were when they were killed, and everything that was not as it should be.
 */
import { killJobs } from './kills.js';

const [count = 200, seed = 1, samples = 16] = process.argv.slice(2).map(Number);
const stages = new Map<string, number>();
/** By the number of layers that were solved. */
const behind: number[] = [];
let wrong = 0;
let killed = 0;
for await (const { layers, blocks, faults } of killJobs({ count, seed, samples })) {
  killed += 1;
  const stage = blocks === null ? 'the output had its name' : `${blocks} blocks were recorded`;
  stages.set(stage, (stages.get(stage) ?? 0) + 1);
  behind[layers] = (behind[layers] ?? 0) + 1;
  if (killed % 20 === 0) console.log(`${killed} kills`);
  if (faults.length === 0) continue;
  wrong += 1;
  console.log(`kill ${killed}, after ${layers} layers, ${stage}: ${faults.join('; ')}`);
}
for (const [stage, kills] of [...stages].sort()) console.log(`${kills} kills when ${stage}`);
console.log(`kills behind 0, 1, 2, … layers: ${Array.from(behind, (kills = 0) => kills).join(' ')}`);
console.log(
  `${killed} kills, ${killed - wrong} jobs that went on to the same bytes and computed no finished block again`,
);
process.exitCode = wrong === 0 ? 0 : 1;
