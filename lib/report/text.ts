import type { Estimate } from '../comparison/index.js';

/** Numbers of a comparison as people read them, with their standard errors. */
const withError = ({ mean, standardError }: Estimate, digits: number): string =>
  standardError === null ? mean.toFixed(digits) : `${mean.toFixed(digits)} ± ${standardError.toFixed(digits)}`;

/** Enough digits for small divergences, none too many for large ones. */
export const klText = (kl: Estimate): string => withError(kl, kl.mean < 0.01 ? 5 : 4);
export const perplexityText = (perplexity: Estimate): string =>
  perplexity.mean < 1e4 ? withError(perplexity, 3) : perplexity.mean.toExponential(2);
export const percentText = (share: number): string => `${(100 * share).toFixed(1)} %`;
export const errorText = ({ mean, standardError }: Estimate): string =>
  standardError === null ? mean.toExponential(2) : `${mean.toExponential(2)} ± ${standardError.toExponential(1)}`;
