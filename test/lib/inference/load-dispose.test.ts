import { expect, test } from 'vitest';
import { loadModel, nativeMemory } from '../../../lib/index.js';
import { memoryAtRest } from '../../memory-at-rest.js';
import { withTinyModel } from '../../tiny-checkpoint.js';

// docs/reliability.md tells of ten thousand.
const rounds = Number(process.env.LUTRA_LOAD_ROUNDS ?? 200);

test(`a model loaded and disposed of ${rounds} times leaves no memory behind`, {
  timeout: 60_000 + rounds * 100,
}, async () => {
  await withTinyModel({}, async (dir) => {
    const load = async () => {
      const model = await loadModel(dir);
      model.dispose();
    };
    for (let round = 0; round < rounds / 4; round++) await load();
    const native = await memoryAtRest();
    const resident = process.memoryUsage.rss();
    for (let round = 0; round < rounds; round++) await load();
    expect(nativeMemory()).toBe(native);
    await memoryAtRest();
    const growth = (process.memoryUsage.rss() - resident) / 2 ** 20;
    if (process.env.LUTRA_LOAD_ROUNDS)
      console.log(`${rounds} rounds: resident memory grew by ${growth.toFixed(1)} MiB`);
    // A sanitizer keeps freed blocks back for a while.
    if (!process.env.LUTRA_SANITIZED) expect(growth).toBeLessThan(48);
  });
});
