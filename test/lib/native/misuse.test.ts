import { describe, expect, it } from 'vitest';
import { addon, dtypeIds, modeIds, opIds, taskIds } from '../../../lib/native/index.js';

/** What no caller of the library does: the addon itself must answer it with an error, never with memory. */
describe('the addon, misused', () => {
  const { Tensor, Packed, Prepared, Program, Cancel } = addon();
  const f32 = (...shape: number[]) => new Tensor(dtypeIds.f32, shape);
  const option = expect.objectContaining({ code: 'LUTRA_E_OPTION' });
  const disposed = expect.objectContaining({ code: 'LUTRA_E_DISPOSED' });

  function packed(bits = 4, kind = 0, offsets = 0) {
    const codes = new Tensor(dtypeIds.u8, [4 * 16 * 2 * 4]);
    return new Packed(codes, new Tensor(dtypeIds.f16, [16]), null, [16, 64, bits, 64, kind, offsets], null);
  }

  it('refuses methods of one class on objects of another, and has no accessors, whose receiver nobody checks', () => {
    const prepared = new Prepared([packed()], f32(1, 64), 0, false, 0);
    const objects = {
      Tensor: f32(4),
      Program: new Program(),
      Cancel: new Cancel(),
      Packed: packed(),
      Prepared: prepared,
    };
    const classes = { Tensor, Program, Cancel, Packed, Prepared } as unknown as Record<string, { prototype: object }>;
    for (const [name, { prototype }] of Object.entries(classes))
      for (const [key, { value, get }] of Object.entries(Object.getOwnPropertyDescriptors(prototype))) {
        if (key === 'constructor') continue;
        expect(get, `${name}.${key}`).toBeUndefined();
        for (const [other, object] of Object.entries({ ...objects, none: {} }))
          if (other !== name)
            expect(() => value.call(object), `${name}.${key} on ${other}`).toThrow('Illegal invocation');
      }
  });

  it('holds when reading an argument disposes the program it is for', () => {
    const program = new Program();
    const x = f32(4);
    const tensors = [x, x];
    Object.defineProperty(tensors, 1, {
      get() {
        program.dispose();
        return x;
      },
    });
    expect(() => program.add(opIds.add, tensors, [], [])).toThrow(disposed);
  });

  it('holds when reading an operand changes the list of operands', async () => {
    const x = f32(4);
    const tensors = [x];
    Object.defineProperty(tensors, 0, {
      get() {
        for (let i = 0; i < 4000; i++) tensors.push(x);
        return x;
      },
    });
    await expect(addon().task(taskIds.findNonFinite, tensors, [], 0, null)).resolves.toEqual([-1]);
  });

  it('refuses modes, kinds and widths that do not exist, also those that would wrap', () => {
    for (const mode of [-1, 3, 7, 255, 256, 2 ** 32, 2 ** 53]) {
      for (const op of [opIds.lutGemm, opIds.lutGemmErrorBound]) {
        const program = new Program();
        program.add(op, [f32(2, 64), f32(2, 16)], [packed()], [mode, 0]);
        expect(() => program.run(0, 0), `mode ${mode}`).toThrow(option);
      }
    }
    for (const bits of [-4, 0, 9, 2 ** 32 + 4, 2 ** 53]) expect(() => packed(bits), `bits ${bits}`).toThrow(option);
    for (const kind of [-1, 2, 3, 256]) expect(() => packed(4, kind), `kind ${kind}`).toThrow(option);
    for (const offsets of [-1, 3, 256]) expect(() => packed(4, 0, offsets), `offsets ${offsets}`).toThrow(option);
    const program = new Program();
    program.add(opIds.lutGemm, [f32(2, 64), f32(2, 16)], [packed()], [modeIds.fast, 0]);
    program.run(0, 0);
  });

  it('holds when prepared activations are misused', () => {
    const prepared = new Prepared([packed(), packed()], f32(2, 64), 0, false, 0);
    expect(() => prepared.multiply(2, f32(2, 16), 0)).toThrow(option);
    expect(() => prepared.multiply(0, f32(3, 16), 0)).toThrow(expect.objectContaining({ code: 'LUTRA_E_SHAPE' }));
    expect(() => prepared.update(f32(2, 65), 0)).toThrow(expect.objectContaining({ code: 'LUTRA_E_SHAPE' }));
    expect(() => prepared.multiply(0, f32(2, 16), 0)).toThrow(option);
    expect(() => new Prepared([], f32(2, 64), 0, false, 0)).toThrow(option);
    expect(() => new Prepared([packed(), f32(2)] as never, f32(2, 64), 0, false, 0)).toThrow(option);
    prepared.dispose();
    expect(() => prepared.multiply(0, f32(2, 16), 0)).toThrow(disposed);
    expect(() => prepared.update(f32(2, 64), 0)).toThrow(disposed);
  });

  it('holds when numbers that become addresses change under a running job', async () => {
    const [rows, vocabulary] = [300, 20_000];
    const target = new Tensor(dtypeIds.i32, [rows]);
    const program = new Program();
    const outputs = [new Tensor(dtypeIds.f64, [rows]), new Tensor(dtypeIds.i32, [rows])];
    program.add(opIds.crossEntropy, [f32(rows, vocabulary), target, ...outputs], [], []);
    const done = program.runAsync(0, 1, null).catch((error) => expect(error).toEqual(option));
    await new Promise((resolve) => setTimeout(resolve, 5));
    target.fill(2 ** 31 - 1);
    await done;
  });

  it('refuses whole numbers that no integer holds', () => {
    for (const threads of [1e300, -1e300, Number.POSITIVE_INFINITY, Number.NaN, 0.5])
      expect(() => addon().lutGemm(packed(), f32(1, 64), f32(1, 16), 0, false, threads)).toThrow(option);
  });
});
