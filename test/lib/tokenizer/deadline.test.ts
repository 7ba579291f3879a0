import { afterEach, expect, test, vi } from 'vitest';
import { withinTime } from '../../../lib/tokenizer/deadline.js';

afterEach(() => vi.restoreAllMocks());

const forever = () => {
  for (;;);
};

test('work that takes too long is ended, and the next is not', () => {
  expect(() => withinTime(forever, 20, 'here')).toThrow(
    expect.objectContaining({ code: 'LUTRA_E_UNSUPPORTED_MODEL', where: 'here', found: 'more than 20 ms' }),
  );
  expect(withinTime(() => 7, 20, 'here')).toBe(7);
});

test('a process that was stopped begins again with twice the time, as often as it takes', () => {
  vi.spyOn(process, 'cpuUsage').mockReturnValue({ user: 0, system: 0 });
  let calls = 0;
  const stoppedThrice = () => (++calls < 4 ? forever() : 'done');
  expect(withinTime(stoppedThrice, 5, 'here')).toBe('done');
  expect(calls).toBe(4);
});

test('what the work throws itself goes through', () => {
  const throws = () => {
    throw new RangeError('no');
  };
  expect(() => withinTime(throws, 20, 'here')).toThrow(RangeError);
});
