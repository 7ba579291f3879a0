import type { Reporter, TestModule, Vitest } from 'vitest/node';

/** Ends a run with "typescript: N passed, N failed, N skipped", and fails a run that had no test. */
export default class ClosingLine implements Reporter {
  #vitest: Vitest | undefined;

  onInit(vitest: Vitest): void {
    this.#vitest = vitest;
  }

  onTestRunEnd(modules: readonly TestModule[]): void {
    const count = { passed: 0, failed: 0, skipped: 0 };
    for (const module of modules) {
      if (module.errors().length) count.failed++;
      for (const test of module.children.allTests()) {
        const { state } = test.result();
        count[state === 'pending' ? 'failed' : state]++;
      }
    }
    if (count.passed + count.failed + count.skipped === 0) process.exitCode = 1;
    this.#vitest?.logger.log(`typescript: ${count.passed} passed, ${count.failed} failed, ${count.skipped} skipped`);
  }
}
