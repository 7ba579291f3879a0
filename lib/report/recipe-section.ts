import type { LayerRow, RowMeasures } from '../comparison/index.js';
import { histogramPlot } from './histogram-plot.js';
import { rowsPlot } from './rows-plot.js';
import type { MeasuredRow, Series } from './series.js';
import { escaped } from './svg.js';
import { errorText } from './text.js';

/** What a recipe did to every layer and to the weights altogether, folded up. */
export function recipeSection(row: MeasuredRow, { colour }: Pick<Series, 'colour'>): string {
  const { layers, first } = row.measured;
  const { before, after, error, relativeError } = first.weights;
  const warnings = first.layers.reduce((sum, layer) => sum + layer.warnings.length, 0);
  const weightsTitle = `${row.label}: weights before and after`;
  const errorTitle = `${row.label}: error of a weight`;
  return [
    '<details>',
    `<summary>${escaped(row.label)}${warnings ? ` <small>${warnings} warnings in the first run</small>` : ''}</summary>`,
    '<div class="cards">',
    `<figure class="card"><figcaption>Error of each layer</figcaption>${layerPlot(layers, colour, row.label)}</figure>`,
    `<figure class="card"><figcaption>Weights before (grey) and after</figcaption>${histogramPlot(
      [
        { histogram: before, colour: 'var(--axis)', filled: true },
        { histogram: after, colour, filled: false },
      ],
      'weight / root mean square of its layer',
      weightsTitle,
    )}<figcaption>Error of a weight: ${relativeError.toExponential(2)} of the power</figcaption>${histogramPlot(
      [{ histogram: error, colour, filled: true }],
      'error / root mean square of the layer’s weights',
      errorTitle,
    )}</figure>`,
    `<div class="card">${layerTable(layers)}<details><summary>Recipe</summary>${recipeOf(row)}</details></div>`,
    '</div>',
    '</details>',
  ].join('\n');
}

function layerPlot(layers: readonly LayerRow[], colour: string, label: string): string {
  const look = { colour, marker: 'circle' } as const;
  const rows = layers.map(({ name, error, heldOutError }) => {
    const seen = { ...look, value: error, filled: true, title: `${name}: ${errorText(error)}` };
    if (!heldOutError) return { label: shortName(name), marks: [seen] };
    const unseen = {
      ...look,
      value: heldOutError,
      filled: false,
      title: `${name}, held out: ${errorText(heldOutError)}`,
    };
    return { label: shortName(name), marks: [seen, unseen] };
  });
  return rowsPlot(rows, 'error relative to the layer’s output', `${label}: error of each layer`);
}

const layerTable = (layers: readonly LayerRow[]): string =>
  [
    '<details><summary>Layers as a table</summary><div class="scroll"><table>',
    '<thead><tr><th scope="col">layer</th><th scope="col">error</th><th scope="col">held out</th></tr></thead>',
    '<tbody>',
    ...layers.map(({ name, error, heldOutError }) => {
      const cells = [errorText(error), heldOutError ? errorText(heldOutError) : ''];
      return `<tr><th scope="row">${escaped(shortName(name))}</th>${cells.map((cell) => `<td>${cell}</td>`).join('')}</tr>`;
    }),
    '</tbody></table></div></details>',
  ].join('\n');

const recipeOf = ({ runs }: { runs: readonly { recipe: unknown }[]; measured: RowMeasures }): string =>
  `<pre>${escaped(JSON.stringify(runs[0]?.recipe, null, 1))}</pre>`;

/** `0 q_proj` of `model.layers.0.self_attn.q_proj.weight`: the block and the layer. */
function shortName(name: string): string {
  const parts = name.replace(/\.weight$/, '').split('.');
  const block = parts.find((part) => /^\d+$/.test(part));
  return block === undefined ? parts.join('.') : `${block} ${parts.at(-1)}`;
}
