import { type Comparison, type ComparisonRow, type ComparisonRun, summarize, titleOf } from '../comparison/index.js';
import { divergencePlot } from './divergence-plot.js';
import { pageOf } from './page.js';
import { recipeSection } from './recipe-section.js';
import { rowsPlot } from './rows-plot.js';
import { isMeasured, type Series, seriesOf } from './series.js';
import { escaped, markerSvg, pictureSvg } from './svg.js';
import { klText, percentText, perplexityText } from './text.js';

/**
 * A comparison as one page that needs no network and no script: what each recipe costs over what it weighs, the same numbers as
 * a table, and what it did to every layer. Every picture is inline SVG with a title; all of it is well-formed XML, too.
 */
export function comparisonPage(comparison: Comparison): string {
  const rows = summarize(comparison);
  const series = seriesOf(rows);
  const title = `Recipes compared on ${comparison.model}`;
  return pageOf(title, [
    introduction(comparison),
    ...(series.length ? comparison.texts.map(({ name }, index) => divergenceSection(series, rows, index, name)) : []),
    tableSection(comparison, rows),
    series.length ? '<h2>What became of the layers</h2>' : '',
    series.length ? layersNote(comparison) : '',
    ...series.flatMap((one) => one.rows.map((row) => recipeSection(row, one))),
  ]);
}

function introduction({ lutra, calibration, texts, runs, planned, bitsPerParameter }: Comparison): string {
  const failed = runs.filter(({ measured }) => !measured).length;
  const told = [
    `lutra ${lutra.version} (${lutra.isa}), ${runs.length} of ${planned} runs${failed ? `, ${failed} failed` : ''}.`,
    `The original has ${bitsPerParameter.toFixed(2)} bits per parameter.`,
    ...texts.map(
      ({ name, original: { tokens, documents, convention, context, mode } }) =>
        `${name}: ${tokens} tokens of ${documents} ${convention}, context ${context}, mode ${mode}.`,
    ),
    calibration
      ? `Calibration: ${calibration.samples ?? 'the default number of'} windows, ${calibration.heldOut} more held out.`
      : 'No calibration text.',
    'Bars and ± are standard errors: over documents or windows and, where a recipe ran with several calibration seeds, over those.',
  ];
  return `<p class="note">${escaped(told.join(' '))}</p>`;
}

function divergenceSection(
  series: readonly Series[],
  rows: readonly ComparisonRow[],
  text: number,
  name: string,
): string {
  const title = `KL divergence over bits per weight, ${name}`;
  return [
    '<section>',
    `<h2>Divergence from the original: ${escaped(name)}</h2>`,
    `<figure class="wide">${divergencePlot(series, text, 880, title)}</figure>`,
    `<figure class="narrow">${divergencePlot(series, text, 400, title)}</figure>`,
    legend(series),
    '<div class="cards">',
    ...ranks(series, rows, text),
    '</div>',
    '</section>',
  ].join('\n');
}

const legend = (series: readonly Series[]): string =>
  [
    '<ul class="legend">',
    ...series.map(({ name, colour, marker }) => {
      const picture = pictureSvg(16, 16, '', [markerSvg(marker, [8, 8], colour, true, '')]);
      return `<li>${picture} ${escaped(name)}</li>`;
    }),
    '</ul>',
  ].join('\n');

/** The recipes of each width from the best to the worst. */
function ranks(series: readonly Series[], rows: readonly ComparisonRow[], text: number): string[] {
  const widths = [...new Set(rows.filter(isMeasured).map(({ measured }) => measured.bits))].sort((a, b) => a - b);
  return widths.map((bits) => {
    const own = series
      .flatMap(({ name, colour, marker, rows: points }) => points.map((row) => ({ row, name, colour, marker })))
      .filter(({ row }) => row.measured.bits === bits)
      .flatMap(({ row, ...look }) => {
        const kl = row.measured.texts[text]?.kl;
        return kl && Number.isFinite(kl.mean) ? [{ row, kl, ...look }] : [];
      })
      .sort((a, b) => a.kl.mean - b.kl.mean);
    const title = `${bits} bits, best first`;
    const plotted = own.map(({ row, kl, name, colour, marker }) => ({
      label: name,
      marks: [{ value: kl, colour, marker, filled: true, title: `${row.label}: ${klText(kl)}` }],
    }));
    return `<figure class="card"><figcaption>${title}</figcaption>${rowsPlot(plotted, 'KL divergence, nats', title)}</figure>`;
  });
}

function tableSection({ texts }: Comparison, rows: readonly ComparisonRow[]): string {
  const heads = texts.flatMap(({ name }) => [`perplexity, ${name}`, `KL, ${name}`, `top-1, ${name}`]);
  const original = texts.flatMap(({ original: { perplexity, perplexityStandardError } }) => [
    perplexityText({ mean: perplexity, standardError: perplexityStandardError }),
    '',
    '',
  ]);
  return [
    '<section>',
    '<h2>Numbers</h2>',
    '<div class="scroll"><table>',
    '<caption>Perplexity, KL divergence from the original in nats, and the share of positions with the same likeliest token</caption>',
    `<thead><tr>${['recipe', 'bits per weight', ...heads, 'runs', 'seconds'].map((head) => `<th scope="col">${escaped(head)}</th>`).join('')}</tr></thead>`,
    '<tbody>',
    rowHtml('original', ['', ...original, '', '']),
    ...rows.flatMap((row) => [
      ...(isMeasured(row) ? [rowHtml(row.label, cellsOf(row))] : []),
      ...row.failed.map((run) => failedRow(run, 4 + heads.length)),
    ]),
    '</tbody></table></div>',
    '</section>',
  ].join('\n');
}

function cellsOf({ measured }: ComparisonRow & { measured: NonNullable<ComparisonRow['measured']> }): string[] {
  const { bitsPerWeight, texts, seeds, seconds } = measured;
  const found = texts.flatMap(({ perplexity, kl, top1Agreement }) => [
    perplexityText(perplexity),
    klText(kl),
    percentText(top1Agreement),
  ]);
  return [bitsPerWeight.toFixed(3), ...found, String(seeds), seconds.toFixed(1)];
}

const rowHtml = (head: string, cells: readonly string[]): string =>
  `<tr><th scope="row">${escaped(head)}</th>${cells.map((cell) => `<td>${escaped(cell)}</td>`).join('')}</tr>`;

function failedRow(run: ComparisonRun, columns: number): string {
  const why = `${run.error?.code}: ${run.error?.message}`;
  return `<tr class="failed"><th scope="row">${escaped(titleOf(run))}</th><td colspan="${columns - 1}">${escaped(why)}</td></tr>`;
}

const layersNote = ({ calibration }: Comparison): string =>
  `<p class="note">${
    calibration?.heldOut
      ? 'Errors of a layer are tr(ΔW H ΔWᵀ) / tr(W H Wᵀ): on the calibration windows (filled), and on windows that no method saw (hollow). A gap between them is what the method fitted to its calibration.'
      : 'Errors of a layer are in each method’s own metric: of the calibration inputs where it takes any, else of the weights. With windows held out all are told in one metric, beside what unseen text makes of them.'
  }</p>`;
