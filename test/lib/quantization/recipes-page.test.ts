import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { finetunes, lowRanks, normalizeRecipe, solvers, transforms } from '../../../lib/quantization/index.js';

const page = readFileSync(join(import.meta.dirname, '..', '..', '..', 'docs', 'recipes.md'), 'utf8');

test('the page’s short form is short for the page’s full form', () => {
  const [short, full] = [...page.matchAll(/(?:^ {4}.*\n)+/gm)]
    .slice(0, 2)
    .map(([block]) => JSON.parse(block) as unknown);
  expect(normalizeRecipe(short)).toEqual(full);
});

test('the page tells every method and every option with its default', () => {
  for (const { name, options } of [...transforms, ...solvers, ...finetunes]) {
    expect(page).toContain(`\`${name}\``);
    for (const [option, value] of Object.entries(options.parse({}) as Record<string, unknown>)) {
      expect(page).toContain(`\`${option}\``);
      if (name !== 'rtn') expect(page).toContain(`| \`${option}\` | ${value} |`);
    }
  }
  for (const { name, options } of lowRanks) {
    expect(page).toContain(`\`${name}\``);
    const { rank: _, ...defaults } = options.parse({ rank: 1 }) as Record<string, unknown>;
    for (const [option, value] of Object.entries(defaults)) expect(page).toContain(`| \`${option}\` | ${value} |`);
  }
});
