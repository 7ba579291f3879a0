import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import {
  CheckpointWriter,
  planCheckpoint,
  type QuantizedEntry,
  readCheckpoint,
} from '../../../../lib/formats/index.js';
import { dequantize } from '../../../../lib/ops/index.js';
import { QuantizedTensor, Tensor } from '../../../../lib/tensor/index.js';
import { scratchDirectory } from '../safetensors-bytes.js';
import { bytesOf, recipe, writeModel } from '../tiny-model.js';

const page = readFileSync(join(import.meta.dirname, '../../../../docs/format.md'), 'utf8');
const scratch = scratchDirectory();

/** The bytes that docs/format.md prints below the line that begins with `part`. */
function printed(part: string): string {
  const [, block = ''] = page.split(`\n\`${part}\`, `);
  const lines = block.split('\n').slice(1);
  const end = lines.findIndex((line, i) => i > 0 && !line.startsWith('    '));
  return lines
    .slice(0, end)
    .join('')
    .replaceAll(/ {4}[0-9a-f]{4} {2}/g, '')
    .replaceAll(' ', '');
}

test("the format page's example means what it says, and is what is stored", async () => {
  const layout = { rows: 2, cols: 5, bits: 2, groupSize: -1, kind: 'uniform', offsets: 'zeroCode' } as const;
  const [codes, scales, zeros] = ['codes', 'scales', 'offsets'].map((part) => Buffer.from(printed(part), 'hex'));
  const halves = Uint16Array.from({ length: 16 }, (_, i) => scales!.readUInt16LE(2 * i));
  using matrix = new QuantizedTensor(
    layout,
    Tensor.copyOf(Uint8Array.from(codes!)),
    Tensor.copyOf(halves, [16], 'f16'),
    Tensor.copyOf(Uint8Array.from(zeros!.subarray(0, 16))),
  );
  using weights = dequantize(matrix);
  expect([...weights.read()]).toEqual([-0.5, 0, 0.5, 1, -0.5, 0.25, 0.25, -0.5, -0.25, 0]);

  const name = 'x.weight';
  const tensors = { [name]: { dtype: 'F32', shape: [2, 5] } } as const;
  await using source = await readCheckpoint(writeModel(join(scratch, 'source'), { tensors: tensors as never }));
  const quantized = new Map<string, QuantizedEntry>([[name, { layout, scaleDtype: 'f16', offsetDtype: null }]]);
  const plan = await planCheckpoint({ source, quantized, recipe });
  await using writer = await CheckpointWriter.create(plan, join(scratch, 'out'));
  await writer.put(name, matrix);
  await writer.finish();
  await using checkpoint = await readCheckpoint(join(scratch, 'out'));
  for (const part of ['codes', 'scales', 'offsets']) {
    using stored = await checkpoint.reader.load(`x.${part}`);
    expect(printed(part)).toMatch(/^[0-9a-f]{128,}$/);
    expect(bytesOf(stored)).toBe(printed(part));
  }
});
