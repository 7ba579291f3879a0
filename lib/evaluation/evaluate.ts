import { createHash } from 'node:crypto';
import { lutraError } from '../errors.js';
import { checkMode, type Mode } from '../ops/index.js';
import { type Cluster, clusteredMean, quantile } from './estimates.js';
import type { MeasuredModel } from './measured-model.js';
import { Scorer } from './scorer.js';
import { type Convention, documentSequences, type Sequence, windowSequences } from './sequences.js';

export interface EvaluationOptions {
  /** The whole text. */
  text: string;
  /** The original model, for the KL divergence to it. */
  reference?: MeasuredModel | undefined;
  /** 'documents' where a separator is given, else 'windows'. */
  convention?: Convention | undefined;
  /** What stands between documents. */
  separator?: string | undefined;
  /** Ids of a sequence at most; the smaller of the model's context and 2048 by default. */
  context?: number | undefined;
  /** Stops after the document or window whose uncut ids bring the count above it; all by default. */
  maxTokens?: number | undefined;
  /** Of both models' packed products; 'exact' by default. */
  mode?: Mode | undefined;
  signal?: AbortSignal | undefined;
  onProgress?: ((event: EvaluationProgress) => void) | undefined;
}

export interface EvaluationProgress {
  readonly phase: 'evaluate';
  /** Tokens computed, and to compute. */
  readonly done: number;
  readonly total: number;
}

/** KL(reference || model) over the counted positions, in nats. */
export interface DivergenceSummary {
  readonly mean: number;
  /** Over documents or windows; null where there is only one. */
  readonly standardError: number | null;
  readonly p99: number;
  readonly p999: number;
  readonly max: number;
}

export interface Evaluation {
  /** exp of the mean loss over the counted tokens. */
  readonly perplexity: number;
  /** Over documents or windows, whose tokens are not independent: perplexity · the mean loss's; null where there is only one. */
  readonly perplexityStandardError: number | null;
  /** Predicted tokens that were counted. */
  readonly tokens: number;
  /** Documents, or windows. */
  readonly documents: number;
  readonly convention: Convention;
  readonly context: number;
  readonly mode: Mode;
  readonly textSha256: string;
  readonly kl: DivergenceSummary | null;
  /** Share of the counted positions at which both models hold the same token the likeliest. */
  readonly top1Agreement: number | null;
  readonly bitsPerWeight: number | null;
  readonly bitsPerParameter: number;
}

/** Tokens computed together at most. */
const maxChunk = 256;
/** Logits held at once, for each model: 64 MiB. */
const maxLogits = 2 ** 24;

/**
 * Measures a model on a text: perplexity, and the KL divergence and top-1 agreement to a reference. Both run in mode
 * 'exact' unless told otherwise.
 *
 * @throws `LUTRA_E_OPTION` for unusable options and a text without a single target; `LUTRA_E_SHAPE` where the reference has
 *   another vocabulary or tokenizer; `LUTRA_E_NON_FINITE` where a model answers with logits that are not numbers;
 *   `signal.reason`
 */
export async function evaluate(model: MeasuredModel, options: EvaluationOptions): Promise<Evaluation> {
  if (typeof options !== 'object' || options === null)
    throw lutraError('LUTRA_E_OPTION', {
      message: 'the options are an object',
      where: 'evaluate.options',
      found: String(options),
    });
  const { text, reference, separator, signal, mode = 'exact' } = options;
  signal?.throwIfAborted();
  checkMode(mode, 'evaluate.mode');
  if (typeof text !== 'string')
    throw lutraError('LUTRA_E_OPTION', { message: 'a text is needed', where: 'evaluate.text', found: typeof text });
  const convention = options.convention ?? (separator === undefined ? 'windows' : 'documents');
  const cut = sequencesOf(convention);
  checkSeparator(text, separator, convention);
  const context = contextOf(model, options);
  if (reference) checkReference(model, reference, text, context);
  const maxTokens = maxTokensOf(options);
  const sequenceOptions = { separator, context, maxTokens, signal };
  const sequences = await cut(text, model.tokenizer, sequenceOptions);
  const measured = await measure(model, sequences, context, mode, options);
  if (measured.tokens === 0)
    throw lutraError('LUTRA_E_OPTION', {
      message: 'the text has no token to predict',
      where: 'evaluate.text',
      found: `${text.length} characters`,
      expected: convention === 'windows' ? `at least one window of ${context} tokens` : 'documents of two tokens',
    });
  const loss = clusteredMean(measured.losses);
  const perplexity = Math.exp(loss.mean);
  return {
    perplexity,
    perplexityStandardError: loss.standardError === null ? null : perplexity * loss.standardError,
    tokens: measured.tokens,
    documents: sequences.length,
    convention,
    context,
    mode,
    textSha256: createHash('sha256').update(text).digest('hex'),
    kl: reference ? summarize(measured) : null,
    top1Agreement: reference ? measured.agreed / measured.tokens : null,
    bitsPerWeight: model.bitsPerWeight,
    bitsPerParameter: model.bitsPerParameter,
  };
}

/** Sums over the counted positions. */
interface Measured {
  tokens: number;
  agreed: number;
  losses: Cluster[];
  divergenceTotals: Cluster[];
  divergences: number[];
}

async function measure(
  model: MeasuredModel,
  sequences: readonly Sequence[],
  context: number,
  mode: Mode,
  options: EvaluationOptions,
): Promise<Measured> {
  const { signal, onProgress, reference } = options;
  const longest = sequences.reduce((max, { ids }) => Math.max(max, ids.length), 1);
  const chunk = Math.max(1, Math.min(maxChunk, longest, Math.floor(maxLogits / model.config.vocabularySize)));
  const sessionOptions = { capacity: Math.min(context, longest), chunk, logits: 'all', mode } as const;
  using session = model.session(sessionOptions);
  using referenceSession = reference?.session(sessionOptions) ?? null;
  using scorer = new Scorer(chunk);
  const measured: Measured = { tokens: 0, agreed: 0, losses: [], divergenceTotals: [], divergences: [] };
  const total = sequences.reduce((sum, { ids }) => sum + ids.length, 0);
  let done = 0;
  for (const { ids, targets } of sequences) {
    session.reset();
    referenceSession?.reset();
    const cluster = { loss: 0, divergence: 0, tokens: 0 };
    for (let begin = 0; begin < ids.length; begin += chunk) {
      const part = ids.slice(begin, begin + chunk);
      const partTargets = targets.slice(begin, begin + chunk);
      const logits = await session.append(part, signal);
      const referenceLogits = (await referenceSession?.append(part, signal)) ?? null;
      const scores = await scorer.score(logits, referenceLogits, partTargets, { threads: model.threads, signal });
      partTargets.forEach((target, row) => {
        if (target < 0) return;
        cluster.tokens++;
        cluster.loss += finite(scores.losses[row]!, 'model');
        if (!scores.divergences || !scores.agreements) return;
        const divergence = finite(scores.divergences[row]!, 'reference');
        cluster.divergence += divergence;
        measured.divergences.push(divergence);
        if (scores.agreements[row]) measured.agreed++;
      });
      done += part.length;
      onProgress?.({ phase: 'evaluate', done, total });
    }
    measured.tokens += cluster.tokens;
    measured.losses.push({ total: cluster.loss, tokens: cluster.tokens });
    measured.divergenceTotals.push({ total: cluster.divergence, tokens: cluster.tokens });
  }
  return measured;
}

/** A loss or a divergence; NaN comes from logits, and would pass through every sum. */
function finite(nats: number, where: 'model' | 'reference'): number {
  if (Number.isFinite(nats)) return nats;
  throw lutraError('LUTRA_E_NON_FINITE', {
    message: 'the model answers with logits that are not numbers',
    where: `evaluate.${where}`,
    hint: 'Its checkpoint is damaged, or its activations leave the range of fp32.',
  });
}

function summarize(measured: Measured): DivergenceSummary {
  const ascending = Float64Array.from(measured.divergences).sort();
  return {
    ...clusteredMean(measured.divergenceTotals),
    p99: quantile(ascending, 0.99),
    p999: quantile(ascending, 0.999),
    max: quantile(ascending, 1),
  };
}

function sequencesOf(convention: string) {
  if (convention === 'documents') return documentSequences;
  if (convention === 'windows') return windowSequences;
  throw lutraError('LUTRA_E_OPTION', {
    message: 'unknown convention',
    where: 'evaluate.convention',
    found: convention,
    expected: "'documents' or 'windows'",
  });
}

/** A separator that cuts nothing would leave a corpus one document, of which all but its beginning is dropped. */
function checkSeparator(text: string, separator: string | undefined, convention: Convention): void {
  if (!separator) return;
  const where = 'evaluate.separator';
  const found = JSON.stringify(separator);
  if (convention === 'windows')
    throw lutraError('LUTRA_E_OPTION', { message: "convention 'windows' takes no separator", where, found });
  if (text.includes(separator) || text.trim() === '') return;
  throw lutraError('LUTRA_E_OPTION', {
    message: 'the separator does not occur in the text',
    where,
    found,
    expected: 'what stands between documents',
    hint: "A shell writes line breaks as $'\\n\\n'; text that is not documents is evaluated with convention 'windows'.",
  });
}

function contextOf(model: MeasuredModel, options: EvaluationOptions): number {
  const limit = Math.min(model.config.context, options.reference?.config.context ?? model.config.context);
  const context = options.context ?? Math.min(limit, 2048);
  if (Number.isSafeInteger(context) && context >= 2 && context <= limit) return context;
  throw lutraError('LUTRA_E_OPTION', {
    message: 'unusable context',
    where: 'evaluate.context',
    found: String(context),
    expected: `2 to ${limit}`,
  });
}

function maxTokensOf(options: EvaluationOptions): number {
  const maxTokens = options.maxTokens ?? Number.POSITIVE_INFINITY;
  if (maxTokens >= 0) return maxTokens;
  throw lutraError('LUTRA_E_OPTION', {
    message: 'unusable option',
    where: 'evaluate.maxTokens',
    found: String(maxTokens),
    expected: 'a number, at least 0',
  });
}

/** Divergences compare the same positions of the same ids over the same vocabulary, or nothing. */
function checkReference(model: MeasuredModel, reference: MeasuredModel, text: string, context: number): void {
  const [found, expected] = [model.config.vocabularySize, reference.config.vocabularySize];
  if (found !== expected)
    throw lutraError('LUTRA_E_SHAPE', {
      message: 'the model and its reference have different vocabularies',
      where: 'evaluate.reference',
      found,
      expected,
    });
  const sample = text.slice(0, 4 * context);
  const [ids, others] = [model, reference].map(({ tokenizer }) => tokenizer.encode(sample, { bos: true }));
  if (ids!.length !== others!.length || ids!.some((id, i) => id !== others![i]))
    throw lutraError('LUTRA_E_SHAPE', {
      message: 'the model and its reference have different tokenizers',
      where: 'evaluate.reference',
    });
}
