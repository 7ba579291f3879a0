import type { ComparisonRow, RowMeasures } from '../comparison/index.js';
import { type Marker, markers } from './svg.js';

/** How the points of one recipe look. Colours alone would not tell twenty of them apart: every one has its own marker, too. */
export interface Series {
  name: string;
  colour: string;
  marker: Marker;
  rows: readonly MeasuredRow[];
}

export type MeasuredRow = ComparisonRow & { measured: RowMeasures };

/** Hues that stay apart for the colour-blind (Okabe and Ito); the page's style gives each a light and a dark value. */
export const hues = 7;

/** Recipes by name and group size, their widths in the order of bits per weight. Recipes that failed throughout have no points. */
export function seriesOf(rows: readonly ComparisonRow[]): Series[] {
  const measured = rows.filter(isMeasured);
  const several = new Set(measured.map((row) => row.measured.groupSize)).size > 1;
  const nameOf = (row: MeasuredRow) => (several ? `${row.name} g${row.measured.groupSize}` : row.name);
  return [...new Set(measured.map(nameOf))].map((name, index) => ({
    name,
    colour: `var(--hue-${index % hues})`,
    // One marker further with every round of colours: both together repeat after 49 recipes.
    marker: markers[(index + Math.floor(index / hues)) % markers.length] ?? 'circle',
    rows: measured
      .filter((row) => nameOf(row) === name)
      .sort((a, b) => a.measured.bitsPerWeight - b.measured.bitsPerWeight),
  }));
}

export const isMeasured = (row: ComparisonRow): row is MeasuredRow => row.measured !== null;
