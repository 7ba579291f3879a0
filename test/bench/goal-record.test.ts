import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { beforeEach, describe, expect, it } from 'vitest';
import { GoalRecord } from '../../bench/kernels/record.js';
import { scratchDirectory } from '../lib/pipeline/random-model.js';

const scratch = scratchDirectory();
const machine = { processor: 'one', date: '2026-01-01' };
let count = 0;
let path = '';
beforeEach(() => {
  path = join(scratch, `goals-${count++}.jsonl`);
});
const add = (goals: string[], value: number, card = machine) => {
  const record = new GoalRecord<{ goal: string; value: number }>(path, card, goals);
  for (const goal of goals) record.add({ goal, value });
};
const lines = (): unknown[] =>
  readFileSync(path, 'utf8')
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line));

describe('a record of goals', () => {
  it('has what is finished, as soon as it is', () => {
    const record = new GoalRecord(path, machine, ['a', 'b']);
    record.add({ goal: 'a' });
    expect(lines()).toEqual([{ machine }, { goal: 'a' }]);
  });

  it('keeps other goals and replaces those that are measured again', () => {
    add(['a', 'b'], 1);
    add(['b', 'c'], 2);
    expect(lines()).toEqual([{ machine }, { goal: 'a', value: 1 }, { goal: 'b', value: 2 }, { goal: 'c', value: 2 }]);
  });

  it('takes no goals beside those of another machine or day, and leaves them', () => {
    add(['a', 'b'], 1);
    const tomorrow = { ...machine, date: '2026-01-02' };
    expect(() => add(['b'], 2, tomorrow)).toThrow(expect.objectContaining({ code: 'LUTRA_E_EXISTS', where: path }));
    expect(lines()).toHaveLength(3);
    add(['a', 'b'], 3, tomorrow);
    expect(lines()[0]).toEqual({ machine: tomorrow });
  });
});
