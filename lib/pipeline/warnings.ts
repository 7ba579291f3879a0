import type { JobResults } from './job.js';

/** How often each kind of warning was recorded in the layers, and how many windows were left out, which is `badWindow`. */
export function countWarnings({
  layers,
  badWindows,
}: Pick<JobResults, 'layers' | 'badWindows'>): Record<string, number> {
  const counts: Record<string, number> = {};
  for (const { warnings } of layers) for (const { kind } of warnings) counts[kind] = (counts[kind] ?? 0) + 1;
  if (badWindows.length) counts.badWindow = badWindows.length;
  return counts;
}
