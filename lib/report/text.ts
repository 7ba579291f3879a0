import type { Estimate } from '../comparison/index.js';

/** Bytes as people read them. */
export function bytesText(bytes: number): string {
  const [unit, name] = bytes < 1e6 ? [1e3, 'kB'] : bytes < 1e9 ? [1e6, 'MB'] : [1e9, 'GB'];
  return `${(bytes / unit).toFixed(bytes < 1e6 ? 1 : 2)} ${name}`;
}

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
