import { expect, test } from 'vitest';
import { nativeMemory } from '../../../lib/native/index.js';
import { quantize } from '../../../lib/quantization/index.js';
import { Tensor } from '../../../lib/tensor/index.js';
import { memoryAtRest } from '../../memory-at-rest.js';
import { gram, normal } from './matrices.js';

const [m, k] = [18, 96];

/** A signal that is raised when it is asked for the n-th time whether it is. */
function raisedAt(n: number): { signal: AbortSignal; asked: () => number } {
  const controller = new AbortController();
  const { signal } = controller;
  let asked = 0;
  signal.throwIfAborted = () => {
    if (++asked >= n) controller.abort('enough');
    if (signal.aborted) throw signal.reason;
  };
  return { signal, asked: () => asked };
}

test.each<[method: string, options: object, heads?: number]>([
  ['rtn', {}],
  ['rtn', { clipSearch: true, symmetric: true }],
  ['rtn', { clipSearch: 'hessian' }],
  ['gptq', {}],
  ['gptq', { actOrder: false }],
  ['gptq', { actOrder: false, staticGroups: false }],
  ['hqq', {}],
  ['leanquant', {}],
  ['bcq', {}],
  ['boa', {}],
  ['boa', { rowBlock: 6 }, 3],
  ['boa', { rowBlock: 4, adaptiveGrid: true, refineScales: true, rounding: { method: 'aespa', iterations: 3 } }],
  ['bcq', { weighting: 'hessian', errorFeedback: true, symmetric: true }],
  ['decoupleq', {}],
  ['decoupleq', { symmetric: true }],
  ['decoupleq', { rounding: 'gradient', steps: 2, innerSteps: 0, iterations: 2 }],
  ['gptq', { lowRank: { method: 'correction', rank: 3, storage: 'i8' } }],
  ['rtn', { lowRank: { method: 'loftq', rank: 3, rounds: 3 } }],
  ['gptq', { lowRank: { method: 'alternation', rank: 3, rounds: 4 } }],
  ['rtn', { lowRank: { method: 'fbquant', rank: 3, steps: 3 } }],
])('an abort at any step of %s %j gives all memory back at once', async (method, options, heads) => {
  const recipe = { method, bits: 3, groupSize: 32, ...options };
  const h = gram(k, 40, 7);
  // A dead column, and a Hessian that needs more damping, take the longest way.
  for (let i = 0; i < k; i++) h[i] = h[i * k] = 0;
  // Where heads are given, each has this Hessian as its own.
  using hessian = heads
    ? Tensor.copyOf(Float64Array.from(Array.from({ length: heads }, () => [...h]).flat()), [heads, k, k])
    : Tensor.copyOf(h, [k, k]);
  // Three heads of six rows, for methods that read row Hessians.
  using rowHessian = Tensor.copyOf(Float64Array.from([1, 2, 3].flatMap((seed) => [...gram(6, 20, seed)])), [3, 6, 6]);
  for (const data of [normal(m, k, 1), new Uint16Array(m * k).fill(0x3c01)]) {
    using w = Tensor.copyOf(data, [m, k], data instanceof Uint16Array ? 'f16' : 'f32');
    const before = await memoryAtRest();
    let steps = 0;
    for (let n = 1; ; n++) {
      const { signal, asked } = raisedAt(n);
      const outcome = await quantize(w, recipe, { statistics: { hessian, rowHessian }, signal }).catch(
        (error: unknown) => error,
      );
      steps = asked();
      if (outcome !== 'enough') {
        (outcome as Tensor).dispose();
        break;
      }
      expect(nativeMemory(), `step ${n}`).toBe(before);
    }
    expect(steps).toBeGreaterThan(10);
    expect(nativeMemory()).toBe(before);
  }
});
