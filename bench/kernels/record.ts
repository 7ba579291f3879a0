import { existsSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { linesOf, type MachineCard } from '../../lib/benchmark/index.js';
import { lutraError } from '../../lib/errors.js';

/** Results by goal in a file of JSON lines, the machine first: what an interrupted run finished is in it. */
export class GoalRecord<Result extends { goal: string }> {
  readonly #path: string;
  readonly #machine: MachineCard;
  readonly #results: Map<string, Result>;

  /**
   * Results of other goals that lie in the file are kept; a file without one is begun anew.
   *
   * @param measured the names of the goals that will be added
   * @throws `LUTRA_E_EXISTS` where others are kept that were measured on another machine or day: one line tells of all
   */
  constructor(path: string, machine: MachineCard, measured: readonly string[]) {
    this.#path = path;
    this.#machine = machine;
    const text = existsSync(path) ? readFileSync(path, 'utf8').trim() : '';
    const [first = '{}', ...lines] = text.split('\n');
    const found = lines.map((line): Result => JSON.parse(line));
    const others = found.some(({ goal }) => !measured.includes(goal));
    if (others && JSON.stringify(JSON.parse(first).machine) !== JSON.stringify(machine))
      throw lutraError('LUTRA_E_EXISTS', {
        message: 'the file holds results of other goals, measured on another machine or day',
        where: path,
        hint: 'Measure all goals, or write to another file.',
      });
    this.#results = new Map(others ? found.map((result) => [result.goal, result]) : []);
  }

  add(result: Result): void {
    this.#results.set(result.goal, result);
    const partial = `${this.#path}.partial`;
    writeFileSync(partial, linesOf(this.#machine, [...this.#results.values()]));
    renameSync(partial, this.#path);
  }
}
