import type { NamedRecipe } from '../../lib/comparison/index.js';

const block = [{ method: 'decoupleq-block', relative: true, learningRate: 0.003 }];
const rank = 4;

/** What docs/methods.md compares; every one is run with each width and group size. Options that are not said are the defaults. */
export const qualityRecipes: readonly NamedRecipe[] = [
  { name: 'rtn', recipe: { method: 'rtn' } },
  { name: 'rtn, hessian clip', recipe: { method: 'rtn', clipSearch: 'hessian' } },
  { name: 'hqq', recipe: { method: 'hqq' } },
  { name: 'awq, rtn', recipe: { method: 'rtn', transforms: [{ method: 'awq' }] } },
  { name: 'leanquant', recipe: { method: 'leanquant' } },
  { name: 'gptq', recipe: { method: 'gptq' } },
  { name: 'gptq, hessian clip', recipe: { method: 'gptq', clipSearch: 'hessian' } },
  { name: 'boa', recipe: { method: 'boa' } },
  { name: 'bcq', recipe: { method: 'bcq' } },
  { name: 'bcq, feedback', recipe: { method: 'bcq', weighting: 'hessian', errorFeedback: true } },
  { name: 'decoupleq', recipe: { method: 'decoupleq' } },
  { name: 'rtn, block stage', recipe: { method: 'rtn', finetune: block } },
  { name: 'gptq, block stage', recipe: { method: 'gptq', finetune: block } },
  { name: 'decoupleq, block stage', recipe: { method: 'decoupleq', finetune: block } },
  { name: `rtn + correction r${rank}`, recipe: { method: 'rtn', lowRank: { method: 'correction', rank } } },
  { name: `rtn + alternation r${rank}`, recipe: { method: 'rtn', lowRank: { method: 'alternation', rank } } },
  { name: `rtn + fbquant r${rank}`, recipe: { method: 'rtn', lowRank: { method: 'fbquant', rank } } },
];
