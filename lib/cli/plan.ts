import { bytesText } from '../formats/index.js';
import type { QuantizationPlan, UnfinishedWork } from '../pipeline/index.js';
import { counted, duration } from './table.js';

/** A plan for a person, a line an idea. */
export function renderPlan(plan: QuantizationPlan): string {
  const { blocks, output, calibration, disk, memory, unfinished, time, notes, unchecked } = plan;
  const layers = blocks.reduce((sum, block) => sum + block.layers.length, 0);
  const read = blocks.reduce((sum, { readBytes }) => sum + readBytes, 0);
  const written = blocks.reduce((sum, { writtenBytes }) => sum + writtenBytes, 0);
  const lines = [
    `plan: ${counted(blocks.length, 'block')} with ${counted(layers, 'layer')}, ${bytesText(read)} of weights, ${bytesText(written)} quantized`,
    `output: ${bytesText(output.bytes)} in ${counted(output.files.length, 'file')}, ${output.bitsPerWeight.toFixed(3)} bits per weight, ${output.bitsPerParameter.toFixed(3)} bits per parameter`,
  ];
  if (calibration) {
    const held = calibration.heldOut ? ` and ${calibration.heldOut} held out` : '';
    lines.push(
      `text: ${counted(calibration.windows, 'window')} of ${calibration.sequenceLength} tokens${held}, out of ${calibration.tokens} tokens`,
    );
  }
  lines.push(
    `disk: ${bytesText(disk.neededBytes)} needed in ${disk.directory}, ${disk.scratchBytes ? `${bytesText(disk.scratchBytes)} of it for activations, ` : ''}${disk.freeBytes === null ? 'free space unknown' : `${bytesText(disk.freeBytes)} free`}`,
    `memory: ${bytesText(memory.peakBytes)} at most, ${memory.at}${memory.limitBytes === null ? '' : `; ${bytesText(memory.limitBytes)} allowed`}`,
  );
  if (unfinished) lines.push(`unfinished work: ${unfinishedLine(unfinished, blocks.length)}`);
  if (time)
    lines.push(
      `time: about ${duration(time.seconds)}, ${duration(time.secondsPerBlock)} a block (${time.basis.join('; ')})`,
    );
  lines.push(...notes.map((note) => `note: ${note}`), ...unchecked.map((what) => `not checked yet: ${what}`));
  return lines.join('\n');
}

function unfinishedLine({ directory, blocks, published, takenOver }: UnfinishedWork, of: number): string {
  const found = `${directory} holds ${blocks === null ? 'what cannot be read' : `${blocks} of ${of} blocks`}`;
  if (!takenOver) return `${found}: it is removed, and the job starts afresh`;
  if (published || blocks === of) return `${found}: the job only completes the output`;
  return `${found}: the job goes on behind them, ${of - (blocks ?? 0)} left`;
}
