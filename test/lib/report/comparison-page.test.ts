import { expect, it } from 'vitest';
import type { Comparison, ComparisonRun } from '../../../lib/comparison/index.js';
import { normalizeRecipe } from '../../../lib/quantization/index.js';
import { comparisonPage } from '../../../lib/report/index.js';
import { checkWellFormed } from './well-formed.js';

const evaluation = (kl: number | null) => ({
  ...{ perplexity: 7.5, perplexityStandardError: 0.2, tokens: 100, documents: 4, convention: 'documents' as const },
  ...{ context: 64, mode: 'exact' as const, textSha256: '0'.repeat(64), bitsPerWeight: null, bitsPerParameter: 16 },
  kl: kl === null ? null : { mean: kl, standardError: kl / 2, p99: kl, p999: kl, max: kl },
  top1Agreement: kl === null ? null : 0.9,
});
const histogram = { limit: 2, counts: [0, 4, 9, 4, 0] };

function runOf(name: string, bits: number, kl: number, heldOutError: number | null): ComparisonRun {
  const layer = {
    ...{ name: 'model.layers.0.self_attn.q_proj.weight', bits, groupSize: 32, symmetric: false, tokens: 10 },
    ...{ relativeError: 0.01, rtnError: 0.02, calibrationError: heldOutError && 0.01, heldOutError },
    ...{ damping: null, deadColumns: 0, scaleDtype: 'f16' as const, warnings: [], lowRank: null },
  };
  return {
    ...{ name, label: `${name} W${bits}g32`, seed: null, error: null },
    recipe: normalizeRecipe({ method: 'rtn', bits, groupSize: 32 }),
    measured: {
      ...{ bitsPerWeight: bits + 0.75, seconds: 1, texts: [evaluation(kl)], layers: [layer] },
      weights: { before: histogram, after: histogram, error: histogram, relativeError: 0.1 },
    },
  };
}

const comparisonOf = (runs: ComparisonRun[]): Comparison => ({
  ...{ version: 1, lutra: { version: '1', formatVersion: 1, isa: 'avx2' }, model: 'a <model> & "more"' },
  ...{ bitsPerParameter: 16, calibration: null, texts: [{ name: 'text', original: evaluation(null) }] },
  ...{ planned: runs.length, runs },
});
const failed: ComparisonRun = {
  ...{ name: 'bad', label: 'bad <W2>', seed: 3, recipe: null, measured: null },
  error: { code: 'LUTRA_E_NON_FINITE', message: 'logits & such' },
};

function checked(runs: ComparisonRun[]): string {
  const page = comparisonPage(comparisonOf(runs));
  checkWellFormed(page.replace('<!DOCTYPE html>', ''));
  expect(page).not.toMatch(/http|<script|<link|<img|@import|url\(|NaN|Infinity|undefined|\[object/i);
  return page;
}

it('shows twenty recipes, each with a marker and colour of its own', () => {
  const names = Array.from({ length: 20 }, (_, i) => `recipe-${i}`);
  const page = checked(
    names.flatMap((name, i) => [2, 3, 4].map((bits) => runOf(name, bits, (i + 1) / 10 ** bits, 0.02))),
  );
  const looks = [...page.matchAll(/<li><svg[^>]*>\n(<path[^>]*>)/g)].map(([, path]) => path);
  expect(looks).toHaveLength(20);
  expect(new Set(looks).size).toBe(20);
  for (const name of names)
    for (const bits of [2, 3, 4]) expect(page).toContain(`<th scope="row">${name} W${bits}g32</th>`);
  expect(page.match(/<svg[^>]*role="img"[^>]*>\n<title>[^<]+</g)?.length).toBe(
    page.match(/<svg[^>]*role="img"/g)?.length,
  );
});

it('tells what failed in a row of its own, with every text escaped', () => {
  const page = checked([runOf('rtn', 2, 0.5, null), failed]);
  expect(page).toContain('bad &lt;W2&gt;, seed 3');
  expect(page).toContain('LUTRA_E_NON_FINITE: logits &amp; such');
  expect(page).toContain('a &lt;model&gt; &amp; &quot;more&quot;');
});

it.each([
  ['nothing', []],
  ['failures alone', [failed]],
  ['a divergence of zero', [runOf('rtn', 4, 0, 0)]],
  ['one that is no number', [runOf('rtn', 2, 0.5, null), runOf('odd', 3, Number.NaN, null)]],
])('is whole with %s', (_, runs) => {
  const page = comparisonPage(comparisonOf(runs));
  checkWellFormed(page.replace('<!DOCTYPE html>', ''));
  // Numbers of pictures; a table may say that a divergence is none.
  expect(page).not.toMatch(/="[^"]*(NaN|Infinity|undefined)/);
});
