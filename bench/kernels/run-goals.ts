/**
 * The goals of goals.ts, measured on this machine beside ONNX Runtime:
 *
 *     npm run bench:kernels -- [--only <pattern>] [--out bench/results/kernels.jsonl] [--plot bench/results/kernels.svg]
 *
 * <pattern> is a regular expression on the goals' names; --list prints them. Every goal is in --out as soon as it is
 * measured, beside the other goals that the file holds. Without `npm ci --ignore-scripts` in bench/peers the goals against
 * ONNX Runtime are left out.
 */
import { mkdirSync, writeFileSync } from 'node:fs';
import { dirname } from 'node:path';
import { parseArgs } from 'node:util';
import { type BenchRow, machineCard, Workbench } from '../../lib/benchmark/index.js';
import { checkWritable } from '../../lib/cli/command.js';
import { table } from '../../lib/cli/table.js';
import { rooflineSvg } from '../../lib/report/index.js';
import { OnnxRuntime, onnxRuntimeIsInstalled } from '../peers/onnxruntime.js';
import { peakMacs } from './dense.js';
import { type Bound, type Goal, goals } from './goals.js';
import { type GoalResult, measureGoal } from './measure-goal.js';
import { GoalRecord } from './record.js';

const optionsOf = () =>
  parseArgs({
    options: {
      only: { type: 'string' },
      out: { type: 'string' },
      plot: { type: 'string' },
      list: { type: 'boolean' },
    },
  }).values;

/** @throws where the pattern is none, or no goal's name has it */
function goalsLike(pattern: string): Goal[] {
  const expression = new RegExp(pattern);
  const chosen = goals.filter(({ name }) => expression.test(name));
  if (chosen.length) return chosen;
  const topics = [...new Set(goals.map(({ name }) => name.split('/')[0]))];
  throw new Error(`no goal is like '${pattern}': their names begin with ${topics.join(', ')}; --list prints them`);
}

const boundName = (bound: Bound | null): string =>
  bound === null ? '' : 'atLeast' in bound ? `>= ${bound.atLeast}` : `<= ${Number(bound.atMost.toFixed(3))}`;

function cells({ goal, bound, ratio, met, rows }: GoalResult): string[] {
  const [ours, ...others] = rows;
  const theirs = others.toSorted((a, b) => a.milliseconds - b.milliseconds)[0];
  return [
    goal,
    boundName(bound),
    ratio.median.toFixed(3),
    `${ratio.p10.toFixed(3)}..${ratio.p90.toFixed(3)}`,
    rows.find(({ failure }) => failure !== undefined)?.failure ?? (met === null ? '' : met ? 'met' : 'MISSED'),
    (ours?.milliseconds ?? Number.NaN).toFixed(4),
    (ours?.normalizedMeanSquaredError ?? Number.NaN).toExponential(1),
    theirs ? [theirs.by, 'weights' in theirs ? theirs.weights : '', theirs.mode].join(' ') : '',
    theirs ? theirs.milliseconds.toFixed(4) : '',
    theirs ? theirs.normalizedMeanSquaredError.toExponential(1) : '',
  ];
}

const head = ['goal', 'bound', 'ratio', 'rounds', '', 'ms', 'NMSE', 'fastest other', 'its ms', 'its NMSE'];

/** Refuses a file that cannot be written while nothing is measured yet. */
async function prepareFile(path: string | undefined): Promise<void> {
  if (path === undefined) return;
  mkdirSync(dirname(path), { recursive: true });
  await checkWritable(path);
}

async function run(): Promise<void> {
  const options = optionsOf();
  const chosen = goalsLike(options.only ?? '');
  if (options.list) return console.log(chosen.map(({ name, bound }) => `${name}  ${boundName(bound)}`).join('\n'));
  const installed = onnxRuntimeIsInstalled();
  const measurable = chosen.filter(({ against }) => against.kind !== 'ort' || installed);
  if (measurable.length < chosen.length)
    console.error(`${chosen.length - measurable.length} goals left out: npm ci --ignore-scripts in bench/peers`);
  for (const path of [options.out, options.plot]) await prepareFile(path);
  const names = measurable.map(({ name }) => name);
  const record = options.out === undefined ? null : new GoalRecord<GoalResult>(options.out, machineCard(), names);
  const ort = measurable.some(({ against }) => against.kind === 'ort') ? new OnnxRuntime() : null;
  const results: GoalResult[] = [];
  try {
    using bench = new Workbench();
    for (const goal of measurable) {
      const result = await measureGoal(goal, bench, ort);
      results.push(result);
      record?.add(result);
      console.error(cells(result).filter(Boolean).join('  '));
    }
  } finally {
    await ort?.dispose();
  }
  console.log(table(head, results.map(cells)));
  const judged = results.filter(({ met }) => met !== null);
  console.log(`\n${judged.filter(({ met }) => met).length} of ${judged.length} goals met`);
  if (options.plot) {
    const rows = results.flatMap((result) => result.rows).filter((row): row is BenchRow => 'weights' in row);
    writeFileSync(options.plot, rooflineSvg(machineCard(), rows, { 1: peakMacs(1), 2: peakMacs(2) }));
  }
}

// By exiting, so that the stopped process of the peer does not stay behind.
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) process.once(signal, () => process.exit(130));
await run().catch((error: unknown) => {
  console.error(error instanceof Error ? error.message : error);
  process.exitCode = 1;
});
