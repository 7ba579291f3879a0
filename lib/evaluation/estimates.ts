/** What one document or window adds to a mean over tokens. */
export interface Cluster {
  readonly total: number;
  readonly tokens: number;
}

export interface MeanEstimate {
  readonly mean: number;
  /** Null where there are fewer than two clusters: nothing to tell their spread from. */
  readonly standardError: number | null;
}

/**
 * The mean over tokens and its standard error over clusters. Tokens of one document are not independent, so the
 * documents are what is sampled: the ratio estimator's linearised variance, D/(D-1) · Σ (totalᵢ - mean · tokensᵢ)² / n²
 * (Cochran, Sampling Techniques, 3rd ed., eq. 2.47).
 */
export function clusteredMean(clusters: readonly Cluster[]): MeanEstimate {
  const filled = clusters.filter((cluster) => cluster.tokens > 0);
  const tokens = filled.reduce((sum, cluster) => sum + cluster.tokens, 0);
  const mean = filled.reduce((sum, cluster) => sum + cluster.total, 0) / tokens;
  const count = filled.length;
  if (count < 2) return { mean, standardError: null };
  const squares = filled.reduce((sum, cluster) => sum + (cluster.total - mean * cluster.tokens) ** 2, 0);
  return { mean, standardError: Math.sqrt((count / (count - 1)) * squares) / tokens };
}

/** The smallest value that at least `share` of the ascending values do not exceed. */
export function quantile(ascending: Float64Array, share: number): number {
  const rank = Math.max(1, Math.ceil(share * ascending.length));
  return ascending[rank - 1] ?? Number.NaN;
}
