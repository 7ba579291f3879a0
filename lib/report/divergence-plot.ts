import type { Estimate } from '../comparison/index.js';
import { linearAxis, logAxis } from './axis.js';
import { frameSvg, pagePaint } from './frame.js';
import type { Series } from './series.js';
import { errorBarSvg, lineSvg, markerSvg, pictureSvg } from './svg.js';
import { klText } from './text.js';

/** KL divergence of every recipe over its true bits per weight, the widths of a recipe joined by a line. */
export function divergencePlot(series: readonly Series[], text: number, width: number, title: string): string {
  const height = Math.round(Math.min(460, Math.max(340, width * 0.6)));
  const points = series.map((one) => ({
    ...one,
    points: one.rows.flatMap((row) => pointsOf(row.measured, row.label, text)),
  }));
  const all = points.flatMap((one) => one.points);
  const bits = all.map((point) => point.bits);
  const x = linearAxis(Math.min(...bits, 3) - 0.2, Math.max(...bits, 4) + 0.2, 52, width - 12);
  const y = logAxis(
    all.map(({ kl }) => kl.mean),
    height - 44,
    34,
  );
  const drawn = points.flatMap(({ colour, marker, points: own }) => [
    ...own.slice(1).map((point, i) => {
      const before = own[i] ?? point;
      const style = { stroke: colour, 'stroke-width': 1.5, 'stroke-opacity': 0.6 };
      return lineSvg([x.at(before.bits), y.at(before.kl.mean)], [x.at(point.bits), y.at(point.kl.mean)], style);
    }),
    ...own.map(({ bits: at, kl }) => errorBarSvg([x.at(at), y.at(low(kl))], [x.at(at), y.at(high(kl))], colour)),
    ...own.map(({ bits: at, kl, label }) =>
      markerSvg(marker, [x.at(at), y.at(kl.mean)], colour, true, `${label}: ${klText(kl)}, ${at.toFixed(2)} bits`),
    ),
  ]);
  const axes = { x: 'bits per weight, scales and offsets included', y: 'KL divergence from the original, nats' };
  return pictureSvg(width, height, title, [frameSvg(x, y, axes, pagePaint), ...drawn]);
}

const low = ({ mean, standardError }: Estimate): number => mean - (standardError ?? 0);
const high = ({ mean, standardError }: Estimate): number => mean + (standardError ?? 0);

function pointsOf(
  { bitsPerWeight: bits, texts }: { bitsPerWeight: number; texts: readonly { kl: Estimate }[] },
  label: string,
  text: number,
): { bits: number; kl: Estimate; label: string }[] {
  const kl = texts[text]?.kl;
  return kl && Number.isFinite(kl.mean) ? [{ bits, kl, label }] : [];
}
