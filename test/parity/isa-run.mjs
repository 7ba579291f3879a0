// Runs with LUTRA_ISA forced, which is read once a process: products and logits of the job on standard input, as JSON.
import { readFileSync } from 'node:fs';
import { doctor, loadModel, lutGemm, lutGemmErrorBound, QuantizedTensor, Tensor } from '../../dist/index.js';

const { cases, model, ids } = JSON.parse(readFileSync(0, 'utf8'));
const modes = ['exact', 'accurate', 'fast'];

const products = cases.map(({ layout, codes, scales, offsets, x }) => {
  const stored = layout.offsets === 'zeroCode' ? Uint8Array : Float32Array;
  const packed = new QuantizedTensor(
    layout,
    Tensor.copyOf(Uint8Array.from(codes)),
    Tensor.copyOf(Float32Array.from(scales)),
    offsets && Tensor.copyOf(stored.from(offsets)),
  );
  const input = Tensor.copyOf(Float32Array.from(x), [x.length / layout.cols, layout.cols]);
  const results = modes.map((mode) => [
    mode,
    { y: [...lutGemm(input, packed, { mode }).read()], bound: [...lutGemmErrorBound(input, packed, { mode }).read()] },
  ]);
  return Object.fromEntries(results);
});

const logits = {};
if (model) {
  const loaded = await loadModel(model);
  for (const mode of modes) logits[mode] = [...(await loaded.logits(ids, { mode })).read()];
  loaded.dispose();
}
process.stdout.write(JSON.stringify({ diagnosis: doctor(), products, logits }));
