import type { LlamaConfig } from '../models/index.js';
import type { Mode } from '../ops/index.js';
import type { Tensor } from '../tensor/index.js';
import type { Tokenizer } from '../tokenizer/index.js';

/** What evaluation needs of a model; `Model` of inference is one. */
export interface MeasuredModel {
  readonly config: Pick<LlamaConfig, 'context' | 'vocabularySize'>;
  readonly tokenizer: Tokenizer;
  readonly threads: number;
  readonly bitsPerWeight: number | null;
  readonly bitsPerParameter: number;
  session(options: { capacity: number; chunk: number; logits: 'all'; mode: Mode }): MeasuredSession;
}

/** One sequence: appends ids and answers with f32 [n, vocabulary], valid until the next call. */
export interface MeasuredSession {
  append(ids: readonly number[], signal?: AbortSignal): Promise<Tensor>;
  reset(): void;
  [Symbol.dispose](): void;
}
