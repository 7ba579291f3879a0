/**
 * The table of the README out of results of run-goals.ts, one line for the shapes and threads of one kind of work:
 *
 *     npx tsx bench/kernels/goals-table.ts bench/results/kernels.jsonl
 */
import { readFileSync } from 'node:fs';
import type { GoalResult } from './measure-goal.js';

/** What the ratio of a topic is. */
const ratios: Readonly<Record<string, string>> = {
  memory: 'share of the memory bandwidth',
  ort: 'times as fast as ONNX Runtime',
  'w3-w4': 'time / W4',
  bcq: 'time / W3',
  rank: 'time / without sub-branch',
  peak: 'share of the fp32 peak',
  invariant: 'time / without',
  idle: 'time / lanes awake',
  shared: 'time / three calls',
};

/** The work of a result without its shape and threads, what is measured and what must be reached. */
function headingOf({ goal, bound }: GoalResult): string[] {
  const [topic = '', shape = '', ...rest] = goal.split('/');
  const [weights, mode, caches, tokens] = rest;
  const work = topic === 'peak' ? shape : `${weights} \`${mode}\` ${caches}, ${tokens?.slice(1)} tok.`;
  const limit = bound === null ? '' : 'atLeast' in bound ? `>= ${bound.atLeast}` : `<= ${bound.atMost.toFixed(2)}`;
  return [work, ratios[topic] ?? topic, limit];
}

function lineOf(heading: readonly string[], results: readonly GoalResult[]): string {
  const medians = results.map(({ ratio }) => ratio.median).sort((a, b) => a - b);
  const [least, most] = [medians[0], medians.at(-1)].map((ratio) => ratio?.toFixed(2));
  const judged = results.filter(({ met }) => met !== null);
  const met = judged.length ? `${judged.filter(({ met }) => met).length} of ${judged.length}` : '';
  return `| ${[...heading, least === most ? least : `${least} to ${most}`, met].join(' | ')} |`;
}

const [file] = process.argv.slice(2);
if (!file) throw new Error('usage: tsx bench/kernels/goals-table.ts <file of results>');
const groups = new Map<string, GoalResult[]>();
for (const line of readFileSync(file, 'utf8').trim().split('\n').slice(1)) {
  const result: GoalResult = JSON.parse(line);
  const key = JSON.stringify(headingOf(result));
  groups.set(key, [...(groups.get(key) ?? []), result]);
}
console.log('| work | ratio | goal | measured | met |\n| --- | --- | ---: | ---: | ---: |');
for (const [heading, results] of groups) console.log(lineOf(JSON.parse(heading), results));
