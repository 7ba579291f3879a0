/**
 * Seconds that the methods take for one matrix of Llama-2-7B's sizes, and the share of the machine's multiply-add peak,
 * measured in the same run, that their arithmetic reaches; or how long an abort takes at these sizes:
 *
 *     npx tsx bench/quantize/speed.ts [--measure time|abort] [--methods gptq,decoupleq]
 *         [--shapes 4096x4096,11008x4096,4096x11008] [--bits 3] [--group-size 128] [--threads 0] [--aborts 4]
 *         [--out bench/results/quantize-speed.jsonl] [--again]
 *
 * Shapes are outFeatures x inFeatures. Every method at every shape is a piece of its own: its line is added to the file when it
 * is done, pieces that the file has are not measured again unless `--again` says so, and the table is of the whole file. Aborts
 * are spread over the time that the file says the piece takes. Weights are random, inputs correlated: a few strong directions
 * over noise. Every row has the error that the method reached, in the metric of those inputs, beside round to nearest on the
 * same levels.
 */
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname } from 'node:path';
import { parseArgs } from 'node:util';
import { linesOf, machineCard, parseShape } from '../../lib/benchmark/index.js';
import { table } from '../../lib/cli/table.js';
import { speedCases } from './speed-cases.js';
import { type AbortRow, type Place, placeOf, type TimeRow, Workpiece } from './speed-measure.js';

const { values: given } = parseArgs({
  options: {
    measure: { type: 'string', default: 'time' },
    methods: { type: 'string', default: speedCases.map(({ name }) => name).join(',') },
    shapes: { type: 'string', default: '4096x4096,11008x4096,4096x11008' },
    bits: { type: 'string', default: '3' },
    'group-size': { type: 'string', default: '128' },
    threads: { type: 'string', default: '0' },
    aborts: { type: 'string', default: '4' },
    out: { type: 'string', default: 'bench/results/quantize-speed.jsonl' },
    again: { type: 'boolean', default: false },
  },
});
const { measure, out } = given;
if (measure !== 'time' && measure !== 'abort') throw new Error(`no measure ${measure}: time, abort`);
const cases = given.methods.split(',').map((name) => {
  const found = speedCases.find((candidate) => candidate.name === name);
  if (!found) throw new Error(`no method ${name}: ${speedCases.map((candidate) => candidate.name).join(', ')}`);
  return found;
});
const shapes = given.shapes.split(',').map((text) => {
  const shape = parseShape(text);
  if (!shape) throw new Error(`no shape: ${text}`);
  return shape;
});

type Row = TimeRow | AbortRow;
const keyOf = ({ measure, method, shape, bits, groupSize, threads }: Place & Pick<Row, 'measure'>) =>
  [measure, method, shape, bits, groupSize, threads].join(' ');
const machine = machineCard();
const [first, ...lines] = existsSync(out) ? readFileSync(out, 'utf8').trim().split('\n') : [];
if (first && JSON.stringify(JSON.parse(first).machine) !== JSON.stringify(machine))
  throw new Error(`${out} holds rows of another machine or day: remove it, or write to another file`);
const rows = new Map(lines.map((line): [string, Row] => [keyOf(JSON.parse(line)), JSON.parse(line)]));

function keep(row: Row): void {
  rows.set(keyOf(row), row);
  mkdirSync(dirname(out), { recursive: true });
  writeFileSync(out, linesOf(machine, [...rows.values()]));
}

for (const shape of shapes)
  for (const one of cases) {
    const settings = {
      bits: Number(given.bits),
      groupSize: Number(given['group-size']),
      threads: Number(given.threads),
    };
    const place = placeOf(one, shape, settings);
    if (!given.again && rows.has(keyOf({ measure, ...place }))) continue;
    const timed = rows.get(keyOf({ measure: 'time', ...place })) as TimeRow | undefined;
    using piece = new Workpiece(one, shape, place);
    if (measure === 'time') keep(await piece.time());
    else if (timed) keep(await piece.abort(timed.prepareSeconds + timed.solveSeconds, Number(given.aborts)));
    else throw new Error(`${out} has no time of ${one.name} at ${place.shape}: measure it first`);
  }

const head = ['method', 'shape', 'prepare s', 'solve s', 'Gflop', 'of the peak', 'error', 'of rounding', 'abort ms'];
const timeRows = [...rows.values()].filter((row): row is TimeRow => row.measure === 'time');
console.log(
  table(
    head,
    timeRows.map((row) => {
      const abort = rows.get(keyOf({ ...row, measure: 'abort' })) as AbortRow | undefined;
      return [
        row.method,
        row.shape,
        row.prepareSeconds.toFixed(2),
        row.solveSeconds.toFixed(2),
        (row.operations / 1e9).toFixed(0),
        `${(100 * row.shareOfPeak).toFixed(0)} %`,
        row.relativeError.toPrecision(3),
        row.rtnError.toPrecision(3),
        abort ? abort.slowestMilliseconds.toFixed(0) : '',
      ];
    }),
  ),
);
