export { HeadHessianCollector, RowHessianCollector, valueRowHessians } from './attention-statistics.js';
export { type Corpus, type CorpusSource, corpusBytes, largestText, readCorpus, requireSource } from './corpus.js';
export { HessianCollector } from './hessians.js';
export { Random } from './random.js';
export { rotaryMean } from './rotary-mean.js';
export { drawHeldOut, drawWindows, tokenizeCorpus, type WindowOptions } from './windows.js';
