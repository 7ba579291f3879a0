import { bytesText } from '../formats/index.js';
import type { LayerResult, Manifest } from '../pipeline/index.js';
import { type BlockSeries, blocksPlot } from './blocks-plot.js';
import { histogramPlot } from './histogram-plot.js';
import { blockOf, type JobReport, kindOf } from './job-report.js';
import { pageOf, tableHtml } from './page.js';
import { hues } from './series.js';
import { attributes, escaped, markerSvg, markers, pictureSvg } from './svg.js';

/**
 * A finished job as one page that needs no network and no script: what it was asked for, what went another way, the error and the
 * damping of every layer, its weights before and after, and where the bytes are. All of it is well-formed XML, too.
 */
export function jobPage(report: JobReport): string {
  const { name, manifest } = report;
  return pageOf(`Quantized: ${name}`, [
    factsSection(report),
    warningsSection(manifest),
    layersSection(manifest.layers),
    finetuneSection(report),
    weightsSection(report),
    sizesSection(report),
    recordSection(report),
  ]);
}

function factsSection({ manifest, runLog, bitsPerWeight, bitsPerParameter, sizes }: JobReport): string {
  const { recipe, layers, badWindows, calibration, lutra } = manifest;
  const { bits, groupSize, symmetric } = recipe.grid;
  const beside = [
    ...recipe.transforms.map(({ method }) => method),
    ...recipe.finetune.map(({ method }) => method),
    ...(recipe.lowRank ? [recipe.lowRank.method] : []),
  ];
  const warnings = layers.reduce((sum, layer) => sum + layer.warnings.length, badWindows.length);
  const facts: [string, string][] = [
    ['method', [recipe.solver.method, ...beside].join(' + ')],
    ['grid', `W${bits}${groupSize === -1 ? ', a group a row' : `g${groupSize}`}${symmetric ? ', symmetric' : ''}`],
    ['bits per weight', bitsPerWeight?.toFixed(3) ?? '-'],
    ['bits per parameter', bitsPerParameter.toFixed(3)],
    ['size of all tensors', bytesText(sizes.reduce((sum, { bytes }) => sum + bytes, 0))],
    ['layers', String(layers.length)],
    ['warnings', String(warnings)],
    [
      'calibration',
      calibration
        ? `${calibration.samples} windows of ${calibration.sequenceLength} tokens, ${calibration.heldOut} held out, seed ${calibration.seed}`
        : 'none',
    ],
    ['time', runLog.seconds === null ? 'not recorded' : `${runLog.seconds.toFixed(1)} s`],
    ['peak memory', runLog.peakRssBytes === null ? 'not recorded' : bytesText(runLog.peakRssBytes)],
    ['made by', `lutra ${lutra.version} on ${lutra.isa}`],
  ];
  const item = ([what, value]: [string, string]) => `<div><dt>${escaped(what)}</dt><dd>${escaped(value)}</dd></div>`;
  return `<dl class="facts">${facts.map(item).join('')}</dl>`;
}

function warningsSection({ layers, badWindows }: Manifest): string {
  const all = layers.flatMap(({ name, warnings }) => warnings.map((warning) => ({ name, ...warning })));
  const left = badWindows.map(({ block, window }) => `window ${window}: left out from block ${block} on`);
  if (!all.length && !left.length)
    return '<h2>Warnings</h2>\n<p class="note">None: every layer went the plain way.</p>';
  const kinds = [...new Set(all.map(({ kind }) => kind))];
  const counts = kinds.map((kind) => {
    const own = all.filter((warning) => warning.kind === kind);
    return [kind, String(own.length), String(new Set(own.map(({ name }) => name)).size)];
  });
  return [
    '<section>',
    '<h2>Warnings</h2>',
    tableHtml(
      ['kind', 'warnings', 'layers'],
      left.length ? [...counts, ['badWindow', String(left.length), '-']] : counts,
    ),
    `<details${attributes(all.length <= 20 ? { open: 'open' } : {})}><summary>Every warning</summary>`,
    '<ul class="list">',
    ...all.map(({ name, kind, message }) => `<li><b>${escaped(name)}</b> ${escaped(`${kind}: ${message}`)}</li>`),
    ...left.map((text) => `<li>${escaped(text)}</li>`),
    '</ul>',
    '</details>',
    '</section>',
  ].join('\n');
}

/** What there is to see of each layer over the depth of the model. */
const measures: readonly { of: (layer: LayerResult) => number | null; title: string; axis: string }[] = [
  { of: ({ relativeError }) => relativeError, title: 'Error of each layer', axis: 'relative error' },
  { of: ({ heldOutError }) => heldOutError, title: 'Error of each layer on windows held out', axis: 'relative error' },
  { of: ({ damping }) => damping, title: 'Damping of each layer', axis: 'share of the mean diagonal' },
];

function layersSection(layers: readonly LayerResult[]): string {
  const drawn = measures.flatMap(({ of, title, axis }) => {
    const series = seriesOf(layers, of);
    const [value, ...others] = new Set(series.flatMap(({ points }) => points.map((point) => point.value)));
    if (value === undefined) return [];
    const without = layers.length - series.reduce((sum, { points }) => sum + points.length, 0);
    const rest = without ? `, but for ${without} of ${layers.length} layers, which have none` : '';
    if (!others.length) return [`<p>${escaped(`${title}: ${numberText(value)} throughout${rest}.`)}</p>`];
    const zero = value === 0 || others.includes(0);
    return [
      `<h2>${escaped(title)}</h2>`,
      `<figure class="wide">${blocksPlot(series, 880, axis, title)}</figure>`,
      `<figure class="narrow">${blocksPlot(series, 400, axis, title)}</figure>`,
      legend(series),
      ...(zero ? ['<p class="note">Zeros lie on the lower edge: a logarithmic axis has no place for them.</p>'] : []),
    ];
  });
  const note =
    'The error is in the method’s own metric: tr(ΔW H ΔWᵀ) / tr(W H Wᵀ) with the Hessian H of the layer’s inputs, where the method has one, else of the weights alone. “Rounded” is round to nearest with the same scales.';
  return ['<section>', ...drawn, `<p class="note">${note}</p>`, layersTable(layers), '</section>'].join('\n');
}

function seriesOf(layers: readonly LayerResult[], of: (layer: LayerResult) => number | null): BlockSeries[] {
  const kinds = [...new Set(layers.map(({ name }) => kindOf(name)))];
  return kinds.flatMap((kind, index) => {
    const points = layers.flatMap((layer) => {
      const [block, value] = [blockOf(layer.name), kindOf(layer.name) === kind ? of(layer) : null];
      if (block === null || value === null || !Number.isFinite(value)) return [];
      return [{ block, value, title: `${layer.name}: ${numberText(value)}` }];
    });
    const marker = markers[index % markers.length] ?? 'circle';
    return points.length ? [{ name: kind, colour: `var(--hue-${index % hues})`, marker, points }] : [];
  });
}

const legend = (series: readonly BlockSeries[]): string =>
  `<ul class="legend">${series
    .map(
      ({ name, colour, marker }) =>
        `<li>${pictureSvg(16, 16, '', [markerSvg(marker, [8, 8], colour, true, '')])} ${escaped(name)}</li>`,
    )
    .join('')}</ul>`;

function layersTable(layers: readonly LayerResult[]): string {
  const rows = layers.map((layer) => [
    layer.name.replace(/\.weight$/, ''),
    `W${layer.bits}${layer.groupSize === -1 ? '' : `g${layer.groupSize}`}`,
    numberText(layer.relativeError),
    numberText(layer.rtnError),
    numberText(layer.heldOutError),
    numberText(layer.damping),
    String(layer.deadColumns),
    layer.tokens === null ? '-' : String(layer.tokens),
    String(layer.warnings.length),
  ]);
  const heads = ['layer', 'grid', 'error', 'rounded', 'held out', 'damping', 'dead columns', 'tokens', 'warnings'];
  return `<details><summary>Layers as a table</summary>${tableHtml(heads, rows)}</details>`;
}

function finetuneSection({ manifest: { finetune } }: JobReport): string {
  if (!finetune.length) return '';
  const rows = finetune.map(({ block, method, lossBefore, lossAfter }) => [
    String(block),
    method,
    numberText(lossBefore),
    numberText(lossAfter),
  ]);
  const heads = ['block', 'method', 'squared error before', 'after'];
  return `<section>\n<h2>Finetuning</h2>\n${tableHtml(heads, rows)}\n</section>`;
}

function weightsSection({ weights, compared, manifest }: JobReport): string {
  const moved = manifest.recipe.transforms.length > 0;
  const notes = [
    'In units of the root mean square of the layer; the outermost bins hold what lies beyond.',
    compared ? 'Grey: before quantization.' : 'What they were before is shown with --model.',
    compared && moved ? 'Transforms changed the weights before they were quantized: the difference is not shown.' : '',
  ];
  const cards = weights.map(({ kind, histograms: { before, after, error, relativeError } }, index) => {
    const colour = `var(--hue-${index % hues})`;
    const axis = 'weight / root mean square';
    const drawn = [{ histogram: after, colour, filled: !compared }];
    if (compared) drawn.unshift({ histogram: before, colour: 'var(--axis)', filled: true });
    const parts = [`<figcaption>${escaped(kind)}</figcaption>`, histogramPlot(drawn, axis, `${kind}: weights`)];
    if (compared && !moved)
      parts.push(
        `<figcaption>error, ${numberText(relativeError)} of the power</figcaption>`,
        histogramPlot([{ histogram: error, colour, filled: true }], 'error / root mean square', `${kind}: errors`),
      );
    return `<figure class="card">${parts.join('\n')}</figure>`;
  });
  const note = `<p class="note">${escaped(notes.filter(Boolean).join(' '))}</p>`;
  return ['<section>', '<h2>Weights</h2>', note, '<div class="cards">', ...cards, '</div>', '</section>'].join('\n');
}

function sizesSection({ sizes, manifest: { outputs } }: JobReport): string {
  const all = sizes.reduce((sum, { bytes }) => sum + bytes, 0);
  const rows = sizes.map(({ what, bytes }) => [what, bytesText(bytes), `${((100 * bytes) / all).toFixed(1)} %`]);
  return [
    '<section>',
    '<h2>Sizes</h2>',
    tableHtml(['tensors', 'size', 'share'], [...rows, ['all', bytesText(all), '']]),
    '<details><summary>Files</summary>',
    tableHtml(['file', 'SHA-256'], Object.entries(outputs.files), 'words'),
    '</details>',
    '</section>',
  ].join('\n');
}

function recordSection({ manifest: { recipe, calibration, inputs } }: JobReport): string {
  return [
    '<section>',
    '<h2>What it was made from</h2>',
    tableHtml(['file', 'SHA-256'], Object.entries(inputs), 'words'),
    `<details><summary>Recipe and calibration</summary><pre>${escaped(JSON.stringify({ recipe, calibration }, null, 1))}</pre></details>`,
    '</section>',
  ].join('\n');
}

const numberText = (value: number | null | undefined): string =>
  value === null || value === undefined
    ? '-'
    : value === 0
      ? '0'
      : value < 1e-3
        ? value.toExponential(2)
        : value.toPrecision(3);
