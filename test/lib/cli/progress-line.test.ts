import { expect, test } from 'vitest';
import { progressLine } from '../../../lib/cli/progress-line.js';

const what =
  'block 12 of 32: model.layers.11.self_attn.q_proj.weight: relative error 1.23e-3, damping 0.01, scaleDtype, fewTokens';
const step = { what, share: 0.376, secondsLeft: 754 };

test('a line leaves the last column of its terminal free, however narrow that is', () => {
  for (const secondsLeft of [null, 9.94, 754, 1e6])
    for (const share of [0, 0.376, 1])
      for (let columns = 1; columns <= 250; columns++)
        expect(progressLine({ what, share, secondsLeft }, 1.5e9, columns).length).toBeLessThanOrEqual(
          Math.max(1, columns - 1),
        );
});

test('the share, the time and the block are told on any usual terminal, the memory where it fits', () => {
  for (const columns of [40, 60, 80, 120, 200]) {
    const line = progressLine(step, 1.5e9, columns);
    expect(line, `${columns}`).toContain(' 37%, 12 min 34 s left, block 12');
    if (columns >= 80) expect(line).toMatch(/^█+░+ .* self_attn\.q_proj.*, 1\.50 GB$/);
  }
  const whole = progressLine(step, 1.5e9, 200);
  expect(whole).toContain(
    'block 12 of 32: self_attn.q_proj: relative error 1.23e-3, damping 0.01, scaleDtype, fewTokens,',
  );
  expect(progressLine({ ...step, secondsLeft: null }, 1.5e9, 80)).toContain(' 37%, block 12 of 32: self_attn');
});

test('names of other tensors and files stay as they are', () => {
  for (const text of ['hashing model-00001-of-00002.safetensors', 'checking lm_head.weight', 'block 1 of 2: hadamard'])
    expect(progressLine({ what: text, share: 0, secondsLeft: null }, 1, 200)).toContain(`, ${text},`);
});
