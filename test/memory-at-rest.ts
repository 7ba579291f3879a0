import { setImmediate as nextTurn } from 'node:timers/promises';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { addon } from '../lib/native/index.js';

setFlagsFromString('--expose-gc');
const collectGarbage: () => void = runInNewContext('gc');

/**
 * Bytes of native tensors after everything that earlier tests dropped was collected. A test that compares with it later
 * without collecting again sees only what its own code kept or gave back.
 */
export async function memoryAtRest(): Promise<number> {
  for (let round = 0; round < 4; round++) {
    collectGarbage();
    await nextTurn();
  }
  return addon().nativeMemory();
}
