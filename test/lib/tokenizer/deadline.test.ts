import { afterEach, expect, test, vi } from 'vitest';
import { withinTime } from '../../../lib/tokenizer/deadline.js';

afterEach(() => {
  vi.restoreAllMocks();
  vi.unstubAllGlobals();
});

const forever = () => {
  for (;;);
};

test('work that takes too long is ended, and the next is not', () => {
  expect(() => withinTime(forever, 20, 'here')).toThrow(
    expect.objectContaining({ code: 'LUTRA_E_UNSUPPORTED_MODEL', where: 'here', found: 'more than 20 ms' }),
  );
  expect(withinTime(() => 7, 20, 'here')).toBe(7);
});

/** Tells these numbers in place of the processor's time; null for a Node that does not tell a thread's. */
function tell(process_: number, thread: number | null): void {
  vi.spyOn(process, 'cpuUsage').mockImplementation((before) => ({ user: before ? process_ : 0, system: 0 }));
  const usage = thread === null ? undefined : () => ({ user: thread, system: 0 });
  vi.stubGlobal('process', Object.create(process, { threadCpuUsage: { value: usage } }));
}

const second = 1e6;
test.each([
  ['process', 0, null],
  ['thread beside others that work', second, 0],
] as const)('a %s that was stopped begins again with twice the time, as often as it takes', (_, all, thread) => {
  tell(all, thread);
  let calls = 0;
  const stoppedThrice = () => (++calls < 4 ? forever() : 'done');
  expect(withinTime(stoppedThrice, 5, 'here')).toBe('done');
  expect(calls).toBe(4);
});

test("a thread's own work counts, whatever the process's is", () => {
  tell(0, second);
  expect(() => withinTime(forever, 5, 'here')).toThrow(expect.objectContaining({ found: 'more than 5 ms' }));
});

test('what the work throws itself goes through', () => {
  const throws = () => {
    throw new RangeError('no');
  };
  expect(() => withinTime(throws, 20, 'here')).toThrow(RangeError);
});
