import { expect, test } from 'vitest';
import { gridOf, matchesLayer, normalizeRecipe, solvers } from '../../../lib/quantization/index.js';

const rtn = { method: 'rtn', bits: 3, groupSize: 64 };

function refusal(recipe: unknown): unknown {
  try {
    normalizeRecipe(recipe);
  } catch (error) {
    return error;
  }
  throw new Error('the recipe was accepted');
}

test('the short form is written out in full, with every default', () => {
  expect(normalizeRecipe(rtn)).toEqual({
    transforms: [],
    solver: { method: 'rtn', clipSearch: false },
    grid: { bits: 3, groupSize: 64, symmetric: false },
    finetune: [],
    lowRank: null,
    overrides: [],
    allocation: null,
  });
  const { solver, grid } = normalizeRecipe({
    method: 'gptq',
    bits: 2,
    groupSize: -1,
    symmetric: true,
    actOrder: false,
  });
  expect(solver).toEqual({
    method: 'gptq',
    actOrder: false,
    staticGroups: true,
    damping: 0.01,
    clipSearch: false,
    trueSequential: false,
  });
  expect(grid).toEqual({ bits: 2, groupSize: -1, symmetric: true });
});

test('a normalised recipe passes unchanged, also through JSON', () => {
  for (const { name } of solvers) {
    const overrides = [{ match: '*.v_proj', bits: 4 }];
    const recipe = normalizeRecipe({ method: name, bits: 3, groupSize: 32, overrides });
    expect(normalizeRecipe(recipe)).toEqual(recipe);
    expect(JSON.stringify(normalizeRecipe(JSON.parse(JSON.stringify(recipe))))).toBe(JSON.stringify(recipe));
  }
});

test('what cannot be run is refused with its code and its path', () => {
  const full = normalizeRecipe(rtn);
  const cases: [unknown, string, string][] = [
    [{ ...rtn, method: 'magic' }, 'LUTRA_E_METHOD', 'recipe.method'],
    [{ bits: 3, groupSize: 64 }, 'LUTRA_E_OPTION', 'recipe.bits'],
    [{ ...full, solver: {} }, 'LUTRA_E_METHOD', 'recipe.solver.method'],
    [{ ...rtn, bits: 5 }, 'LUTRA_E_BITS', 'recipe.bits'],
    [{ ...rtn, bits: '3' }, 'LUTRA_E_BITS', 'recipe.bits'],
    [{ method: 'rtn', groupSize: 64 }, 'LUTRA_E_BITS', 'recipe.bits'],
    [{ ...rtn, groupSize: 48 }, 'LUTRA_E_GROUP_SIZE', 'recipe.groupSize'],
    [{ ...rtn, groupSize: 0 }, 'LUTRA_E_GROUP_SIZE', 'recipe.groupSize'],
    [{ method: 'rtn', bits: 3 }, 'LUTRA_E_GROUP_SIZE', 'recipe.groupSize'],
    [{ ...rtn, symmetric: 1 }, 'LUTRA_E_OPTION', 'recipe.symmetric'],
    [{ ...rtn, actOrder: true }, 'LUTRA_E_OPTION', 'recipe.actOrder'],
    [{ ...rtn, method: 'gptq', staticGroups: false }, 'LUTRA_E_OPTION', 'recipe.actOrder'],
    [{ ...rtn, method: 'gptq', damping: -1 }, 'LUTRA_E_OPTION', 'recipe.damping'],
    [{ ...rtn, method: { toString: 1 } }, 'LUTRA_E_METHOD', 'recipe.method'],
    [{ ...rtn, grid: 3 }, 'LUTRA_E_OPTION', 'recipe.grid'],
    [{ ...rtn, grid: {} }, 'LUTRA_E_OPTION', 'recipe.grid'],
    [{ ...full, surprise: 1 }, 'LUTRA_E_OPTION', 'recipe.surprise'],
    [{ ...full, grid: { ...full.grid, zero: 1 } }, 'LUTRA_E_OPTION', 'recipe.grid.zero'],
    [{ ...full, transforms: 'magic' }, 'LUTRA_E_OPTION', 'recipe.transforms'],
    [{ ...full, transforms: ['magic'] }, 'LUTRA_E_OPTION', 'recipe.transforms.0'],
    [{ ...full, transforms: [{ method: 'magic' }] }, 'LUTRA_E_METHOD', 'recipe.transforms.0.method'],
    [{ ...full, finetune: [{ method: 'rtn' }] }, 'LUTRA_E_METHOD', 'recipe.finetune.0.method'],
    [{ ...full, lowRank: { rank: 8 } }, 'LUTRA_E_METHOD', 'recipe.lowRank.method'],
    [{ ...rtn, lowRank: [] }, 'LUTRA_E_OPTION', 'recipe.lowRank'],
    [{ ...rtn, overrides: [{ match: '*', bits: 8 }] }, 'LUTRA_E_BITS', 'recipe.overrides.0.bits'],
    [{ ...rtn, overrides: [{ match: '*', groupSize: 8 }] }, 'LUTRA_E_GROUP_SIZE', 'recipe.overrides.0.groupSize'],
    [{ ...rtn, overrides: [{ bits: 2 }] }, 'LUTRA_E_OPTION', 'recipe.overrides.0.match'],
    [{ ...rtn, overrides: [{ match: '*' }] }, 'LUTRA_E_OPTION', 'recipe.overrides.0'],
    [{ ...rtn, overrides: [{ match: '{a', bits: 2 }] }, 'LUTRA_E_OPTION', 'recipe.overrides.0.match'],
    [{ ...rtn, overrides: [{ match: '*', bits: 2, rank: 1 }] }, 'LUTRA_E_OPTION', 'recipe.overrides.0.rank'],
    [{ ...full, grid: { ...full.grid, bits: 5 } }, 'LUTRA_E_BITS', 'recipe.grid.bits'],
    [{ ...full, solver: { method: 'gptq', damping: -1 } }, 'LUTRA_E_OPTION', 'recipe.solver.damping'],
    [null, 'LUTRA_E_OPTION', 'recipe'],
    ['rtn', 'LUTRA_E_OPTION', 'recipe'],
  ];
  for (const [recipe, code, where] of cases)
    expect(refusal(recipe), JSON.stringify(recipe)).toMatchObject({ code, where });
});

test('a refused value is told with what is expected in its place', () => {
  const aespa = { method: 'aespa', iterations: -1 };
  const cases: [object, string | undefined, string | undefined, string][] = [
    [{ method: 'gptq', damping: 5 }, '5', 'at most 1', 'the number is out of range'],
    [{ method: 'gptq', damping: Number.NaN }, 'NaN', 'a number', 'another type'],
    [{ method: 'gptq', actOrder: 'yes' }, '"yes"', 'true or false', 'another type'],
    [{ method: 'gptq', clipSearch: 'x' }, '"x"', undefined, 'false, true or "hessian" is needed'],
    [{ method: 'gptq', groupsize: 128 }, undefined, 'groupSize', 'unknown key'],
    [{ method: 'gptq', actorder: true }, undefined, 'actOrder, staticGroups, damping', 'unknown key'],
    [{ method: 'hqq', norm: 0 }, '0', 'more than 0', 'the number is out of range'],
    [{ method: 'bcq', start: 'middle' }, '"middle"', '"greedy" or "grid" or "best"', 'none of those that there are'],
    [{ method: 'boa', rowBlock: 1.5 }, '1.5', 'a whole number', 'another type'],
    [{ method: 'boa', rounding: aespa }, '-1', 'at least 0', 'the number is out of range'],
    [{ overrides: 'all' }, '"all"', 'a list', 'another type'],
    [{ allocation: { bitsPerWeight: 2, widths: [] } }, '[]', 'at least 1 elements', 'the length is out of range'],
  ];
  for (const [change, found, expected, message] of cases) {
    const error = refusal({ ...rtn, ...change });
    const told = { found, message: expect.stringContaining(message) };
    expect(error, JSON.stringify(change)).toMatchObject(told);
    if (expected) expect(error).toMatchObject({ expected: expect.stringContaining(expected) });
  }
});

test('the refusal of a method names those that there are', () => {
  expect(refusal({ ...rtn, method: 'magic' })).toMatchObject({
    found: "'magic'",
    expected: solvers.map(({ name }) => `'${name}'`).join(' or '),
  });
});

test('a glob matches the whole name, with or without .weight', () => {
  const name = 'model.layers.3.self_attn.q_proj.weight';
  const matching = ['*', '*.q_proj', '*.q_proj.weight', 'model.layers.3.*', 'model.layers.?.self_attn.q_proj', name];
  for (const glob of [...matching, '*.{k,q}_proj', '*{3}*']) expect(matchesLayer(glob, name), glob).toBe(true);
  for (const glob of [
    'q_proj',
    '*.q_pro',
    'model.layers.?',
    'modelxlayers*',
    '*.{k,v}_proj',
    '*.Q_proj',
    '(.*)',
    '[a-z]*',
  ])
    expect(matchesLayer(glob, name), glob).toBe(false);
});

test('a glob of many stars takes no time', () => {
  const name = 'model.layers.0.self_attn.q_proj.weight';
  expect(matchesLayer(`${'*'.repeat(1000)}z`, name)).toBe(false);
  expect(matchesLayer(`${'*a'.repeat(200)}*{*,*e*}*`, name)).toBe(false);
  expect(matchesLayer(`${'*'.repeat(1000)}{x,*q_*}${'*'.repeat(1000)}`, name)).toBe(true);
});

test('overrides change the layers that they name, the last word last', () => {
  const overrides = [
    { match: '*.down_proj', bits: 4 },
    { match: 'model.layers.0.*', groupSize: 32, bits: 2 },
  ];
  const recipe = normalizeRecipe({ ...rtn, overrides });
  const grid = (name: string) => gridOf(recipe, name);
  expect(grid('model.layers.1.mlp.up_proj.weight')).toEqual({ bits: 3, groupSize: 64, symmetric: false });
  expect(grid('model.layers.1.mlp.down_proj.weight')).toEqual({ bits: 4, groupSize: 64, symmetric: false });
  expect(grid('model.layers.0.mlp.down_proj.weight')).toEqual({ bits: 2, groupSize: 32, symmetric: false });
});

test('every registered method keeps the contract', () => {
  expect(new Set(solvers.map(({ name }) => name)).size).toBe(solvers.length);
  for (const solver of solvers) {
    expect(solver.scope).toBe('matrix');
    for (const need of solver.needs(solver.options.parse({})))
      expect(['hessian', 'attention', 'headHessians', 'valueRows']).toContain(need);
    expect(['zeroCode', 'realOffset', 'planes']).toContain(solver.storage);
    // Every option has a default, and what is unknown is refused.
    expect(solver.options.safeParse({}).success).toBe(true);
    expect(solver.options.safeParse({ unheardOf: 1 }).success).toBe(false);
  }
});
