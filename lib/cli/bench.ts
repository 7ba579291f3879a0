import { writeFile } from 'node:fs/promises';
import { type Command, InvalidArgumentError, Option } from 'commander';
import {
  type BenchPlan,
  type BenchRow,
  type CacheState,
  cacheStates,
  defaultEffort,
  expand,
  linesOf,
  type MachineCard,
  machineCard,
  modelShapes,
  type Peer,
  parseShape,
  runCases,
  type Shape,
  tableOf,
} from '../benchmark/index.js';
import { lutraError } from '../errors.js';
import { onFile } from '../formats/index.js';
import { type Mode, maxThreads } from '../ops/index.js';
import { rooflineSvg } from '../report/index.js';
import {
  type CommonOptions,
  checkWritable,
  type Invocation,
  listOf,
  runCommand,
  wholeNumber,
  withCommonOptions,
} from './command.js';
import { counted, table } from './table.js';

const kinds = ['uniform', 'planes'] as const;
const modes: readonly Mode[] = ['exact', 'accurate', 'fast'];

export interface BenchOptions extends CommonOptions {
  shape: Shape[];
  model?: string[];
  kind: (typeof kinds)[number][];
  bits: number[];
  groupSize: number[];
  rank: number[];
  mode: Mode[];
  tokens: number[];
  threads: number[];
  caches: CacheState[];
  batchInvariant?: boolean;
  time: number;
  lines?: string;
  plot?: string;
}

export interface BenchResult {
  machine: MachineCard;
  rows: BenchRow[];
}

export function registerBench(program: Command): void {
  const command = program.command('bench').description('time lutGemm on this machine, with the error of its result');
  withBenchOptions(withCommonOptions(command)).action((options: BenchOptions) =>
    runCommand('bench', options, (invocation) => bench(options, invocation), render),
  );
}

/** What is to be timed: comma-separated lists, every combination of which is a row. */
export function withBenchOptions(command: Command): Command {
  const list = <Value>(flag: string, what: string, parse: (text: string) => Value, preset: string) =>
    new Option(`${flag} <list>`, what).argParser(listOf(parse)).default(listOf(parse)(preset), preset);
  return command
    .addOption(list('--shape', 'sizes MxK, out features x in features', shape, '4096x4096'))
    .addOption(
      new Option('--model <list>', 'the layers of known models, instead of shapes')
        .argParser(listOf(oneOf(Object.keys(modelShapes))))
        .conflicts('shape'),
    )
    .addOption(list('--kind', 'uniform weights, or planes (binary codes)', oneOf(kinds), 'uniform'))
    .addOption(list('--bits', 'widths of the weights', wholeNumber(1), '2,3,4'))
    .addOption(list('--group-size', 'columns a group, -1 for the row', wholeNumber(-1), '128'))
    .addOption(list('--rank', 'ranks of a sub-branch, 0 for none', wholeNumber(0), '0'))
    .addOption(list('--mode', 'exact, accurate, fast', oneOf(modes), modes.join(',')))
    .addOption(list('--tokens', 'rows of activations', wholeNumber(1), '1'))
    .addOption(list('--threads', 'lanes at most, 0 for all', wholeNumber(0, maxThreads), '0'))
    .addOption(list('--caches', 'where weights lie: hot, cold, or hot with idle lanes', oneOf(cacheStates), 'hot'))
    .option('--batch-invariant', 'the same bits for a token alone or among others')
    .option(
      '--time <ms>',
      'time for each row, its bandwidth probe included; a row takes what it needs at least',
      wholeNumber(1),
      defaultEffort.milliseconds,
    )
    .option('--lines <file>', 'write the rows as JSON lines, the machine first')
    .option('--plot <file>', 'write a roofline plot as SVG');
}

const described = ({ shape, weights, groupSize, tokens, threads, caches, by, mode }: BenchRow): string =>
  `${shape} ${weights}, groups of ${groupSize === -1 ? 'a row' : groupSize}, ${counted(tokens, 'token')}, ${counted(threads, 'thread')}, ${caches}, ${by} ${mode}`;

/** @param peers what is to be timed beside lutra */
export async function bench(
  options: BenchOptions,
  { signal }: Invocation,
  peers: readonly Peer[] = [],
): Promise<BenchResult> {
  for (const path of [options.lines, options.plot]) if (path !== undefined) await checkWritable(path);
  const machine = machineCard();
  const rows = await runCases(expand(planOf(options, Number(machine.threads))), {
    effort: { ...defaultEffort, milliseconds: options.time },
    peers,
    signal,
    onRow: (row) => process.stderr.write(`${described(row)}: ${row.milliseconds.toFixed(4)} ms\n`),
  });
  const files = [
    [options.lines, linesOf(machine, rows)],
    [options.plot, rooflineSvg(machine, rows)],
  ] as const;
  for (const [path, text] of files) if (path !== undefined) await onFile(path, () => writeFile(path, text));
  return { machine, rows };
}

function planOf(options: BenchOptions, lanes: number): BenchPlan {
  const { model } = options;
  return {
    shapes: model ? model.flatMap((name) => modelShapes[name] ?? []) : options.shape,
    kinds: options.kind,
    bits: options.bits,
    groupSizes: options.groupSize,
    ranks: options.rank,
    modes: options.mode,
    tokens: options.tokens,
    threads: [...new Set(options.threads.map((count) => lanesOf(count, lanes)))],
    caches: options.caches,
    batchInvariant: options.batchInvariant === true,
  };
}

function lanesOf(count: number, lanes: number): number {
  if (count <= lanes) return count === 0 ? lanes : count;
  throw lutraError('LUTRA_E_OPTION', {
    message: 'more threads than there are lanes cannot be measured',
    where: '--threads',
    found: String(count),
    expected: `at most ${lanes}`,
    hint: 'LUTRA_THREADS sets the number of lanes',
  });
}

const oneOf =
  <Name extends string>(names: readonly Name[]) =>
  (text: string): Name => {
    const found = names.find((name) => name === text);
    if (found === undefined) throw new InvalidArgumentError(`one of ${names.join(', ')} is needed.`);
    return found;
  };

function shape(text: string): Shape {
  const found = parseShape(text);
  if (!found) throw new InvalidArgumentError('two sizes are needed, for example 4096x4096.');
  return found;
}

export function render({ machine, rows }: BenchResult): string {
  const { head, cells } = tableOf(rows);
  return `${machine.processor}, ${machine.isa}\n\n${table(head, cells)}`;
}
