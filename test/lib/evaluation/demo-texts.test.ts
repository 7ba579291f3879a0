import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { evaluate } from '../../../lib/evaluation/index.js';
import { loadModel } from '../../../lib/inference/index.js';

const fixtures = join(import.meta.dirname, '..', '..', 'fixtures', 'models');
const separator = '<|endoftext|>';

it('the demo texts are the demo model’s own: disjoint stories, as surprising to it as its own draws are', async () => {
  const [calibration, evaluation] = await Promise.all(
    ['calibration.txt', 'evaluation.txt'].map((file) => readFile(join(fixtures, 'demo-texts', file), 'utf8')),
  );
  const stories = (text: string) => text.split(separator).map((story) => story.trim());
  const used = new Set(stories(calibration!));
  for (const story of stories(evaluation!)) expect(used.has(story)).toBe(false);

  using model = await loadModel(join(fixtures, 'demo'));
  const [own, other] = await Promise.all(
    [calibration!, evaluation!].map((text) => evaluate(model, { text, separator, maxTokens: 10_000 })),
  );
  // Two samples of one source: their mean losses differ by chance only.
  const spread = ({ perplexity, perplexityStandardError }: typeof own & object) =>
    perplexityStandardError! / perplexity;
  const difference = Math.log(own!.perplexity / other!.perplexity);
  expect(Math.abs(difference)).toBeLessThan(4 * Math.hypot(spread(own!), spread(other!)));
});
