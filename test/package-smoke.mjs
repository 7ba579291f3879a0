// Runs against the installed package: one product with packed weights, or the error of a missing binary.
import assert from 'node:assert/strict';

if (process.argv.includes('--no-binary')) {
  await assert.rejects(
    import('lutra'),
    (error) => error.code === 'LUTRA_E_NO_BINARY' && /tried/.test(error.message) && error.hint.length > 0,
  );
} else {
  const { quantize, lutGemm, dequantize, Tensor } = await import('lutra');
  const w = Tensor.from(
    Float32Array.from({ length: 32 * 64 }, (_, i) => Math.sin(i)),
    [32, 64],
  );
  const x = Tensor.from(new Float32Array(64).fill(1), [1, 64]);
  const q = await quantize(w, { method: 'rtn', bits: 4, groupSize: 32 });
  const y = lutGemm(x, q, { mode: 'exact' }).read();
  const dense = dequantize(q).read();
  for (let m = 0; m < 32; m++) {
    let sum = 0;
    for (let k = 0; k < 64; k++) sum += dense[m * 64 + k];
    assert.ok(Math.abs(y[m] - sum) < 1e-4, `row ${m}: ${y[m]} is not ${sum}`);
  }
}
