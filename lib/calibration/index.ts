export { type Corpus, type CorpusSource, readCorpus, requireSource } from './corpus.js';
export { HessianCollector } from './hessians.js';
export { Random } from './random.js';
export { drawWindows, tokenizeCorpus, type WindowOptions } from './windows.js';
