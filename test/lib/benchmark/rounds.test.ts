import { describe, expect, it } from 'vitest';
import { asyncBurst, burst, type Contestant, interleave } from '../../../lib/benchmark/index.js';

const length = { calls: 20, milliseconds: 0 };
const effort = { rounds: 3, milliseconds: 0, burst: length };

describe('bursts', () => {
  it('measure at least the calls that were asked for, after one that is not measured', () => {
    let calls = 0;
    const samples = burst(() => void calls++, length);
    expect(samples.length).toBeGreaterThanOrEqual(20);
    expect(calls).toBe(samples.length + 1);
    expect(samples.every((sample) => sample >= 0)).toBe(true);
  });

  it('last as long as they were asked to', () => {
    const samples = burst(
      () => {
        const begin = performance.now();
        while (performance.now() - begin < 1);
      },
      { calls: 1, milliseconds: 10 },
    );
    expect(samples.reduce((sum, sample) => sum + sample, 0)).toBeGreaterThanOrEqual(10);
  });

  it('wait for calls that are asynchronous, one at a time', async () => {
    let running = 0;
    const samples = await asyncBurst(async () => {
      expect(++running).toBe(1);
      await new Promise(setImmediate);
      running--;
    }, length);
    expect(samples).toHaveLength(20);
  });

  it('end with the error of a call', async () => {
    const fail = () => {
      throw new Error('broken call');
    };
    expect(() => burst(fail, length)).toThrow('broken call');
    await expect(asyncBurst(async () => fail(), length)).rejects.toThrow('broken call');
  });
});

describe('rounds', () => {
  const order: string[] = [];
  const contestant = (name: string): Contestant => ({
    work: 1,
    burst() {
      order.push(name);
      return [order.length];
    },
  });

  it('let contestants take turns', async () => {
    const rounds = await interleave([contestant('a'), contestant('b')], effort);
    expect(order.join('')).toBe('ababab');
    expect(rounds).toEqual([
      [[1], [3], [5]],
      [[2], [4], [6]],
    ]);
  });

  it('stop when they are told to', async () => {
    const controller = new AbortController();
    const stopping: Contestant = {
      work: 1,
      burst() {
        controller.abort(new Error('enough'));
        return [1];
      },
    };
    await expect(interleave([stopping, contestant('never')], effort, controller.signal)).rejects.toThrow('enough');
    expect(order).not.toContain('never');
  });
});
