import { describe, expect, it } from 'vitest';
import { addon } from '../../../lib/native/index.js';
import { Tensor } from '../../../lib/tensor/index.js';
import { memoryAtRest } from '../../memory-at-rest.js';

const codeOf = (call: () => unknown): string => {
  try {
    call();
  } catch (error) {
    return (error as { code: string }).code;
  }
  return 'no error';
};

describe('Tensor', () => {
  it('starts at zero and gives back what was written', () => {
    const t = Tensor.zeros('f32', [2, 3]);
    expect([...t.read()]).toEqual([0, 0, 0, 0, 0, 0]);
    t.write(Float32Array.of(1, 2, 3), 2);
    expect([...t.read(1, 4)]).toEqual([0, 1, 2, 3]);
  });

  it('borrows a typed array without a copy', async () => {
    const before = await memoryAtRest();
    const data = Float32Array.of(1, 2, 3, 4);
    const t = Tensor.from(data, [2, 2]);
    data[3] = 40;
    expect([...t.rows(1, 2).read()]).toEqual([3, 40]);
    expect(addon().nativeMemory()).toBe(before);
  });

  it('views share memory and outlive what they were taken from', () => {
    const t = Tensor.zeros('i32', [4, 2]);
    const view = t.rows(2, 4).reshape([4]);
    t.write(Int32Array.of(1, 2, 3, 4, 5, 6, 7, 8));
    t.dispose();
    expect([...view.read()]).toEqual([5, 6, 7, 8]);
  });

  it('fills in every element type', () => {
    const filled = (dtype: 'f32' | 'f64' | 'f16' | 'bf16' | 'u8' | 'i32') => {
      const t = Tensor.zeros(dtype, [2]);
      t.fill(3);
      return t.read()[1];
    };
    expect(filled('f32')).toBe(3);
    expect(filled('f64')).toBe(3);
    expect(filled('f16')).toBe(0x4200); // 1.5 · 2
    expect(filled('bf16')).toBe(0x4040);
    expect(filled('u8')).toBe(3);
    expect(filled('i32')).toBe(3);
  });

  it('refuses element types and shapes that there are not, and what is no typed array', () => {
    expect(codeOf(() => Tensor.zeros('f8' as 'f16', [2]))).toBe('LUTRA_E_DTYPE');
    expect(codeOf(() => Tensor.zeros('toString' as 'f16', [2]))).toBe('LUTRA_E_DTYPE');
    expect(codeOf(() => Tensor.from([1, 2] as unknown as Float32Array))).toBe('LUTRA_E_DTYPE');
    expect(() => Tensor.zeros('f32', [2 ** 30, 2 ** 30])).toThrow(/too large/);
    expect(() => Tensor.zeros('f32', [1.5])).toThrow(/whole numbers/);
  });

  it('counts native bytes and gives them back on dispose', async () => {
    const before = await memoryAtRest();
    const t = Tensor.zeros('f64', [1000]);
    expect(addon().nativeMemory() - before).toBe(8000);
    t.dispose();
    t[Symbol.dispose]();
    expect(addon().nativeMemory()).toBe(before);
    expect(codeOf(() => t.read())).toBe('LUTRA_E_DISPOSED');
    expect(codeOf(() => t.native)).toBe('LUTRA_E_DISPOSED');
  });

  it('refuses a detached array on every use', () => {
    const data = new Float32Array(4);
    const t = Tensor.from(data);
    structuredClone(data.buffer, { transfer: [data.buffer] });
    expect(codeOf(() => t.read())).toBe('LUTRA_E_DISPOSED');
    expect(codeOf(() => t.fill(1))).toBe('LUTRA_E_DISPOSED');
  });

  it('refuses shapes that are none', () => {
    for (const shape of [[], [-1], [1.5], [1, 1, 1, 1, 1], [Number.NaN], [2 ** 40, 2 ** 40]])
      expect(codeOf(() => Tensor.zeros('f32', shape))).toBe('LUTRA_E_SHAPE');
    expect(codeOf(() => Tensor.from(new Float32Array(4), [5]))).toBe('LUTRA_E_SHAPE');
    expect(codeOf(() => Tensor.zeros('f32', [4]).reshape([5]))).toBe('LUTRA_E_SHAPE');
    expect(codeOf(() => Tensor.zeros('f32', [4]).rows(3, 5))).toBe('LUTRA_E_SHAPE');
    expect(codeOf(() => Tensor.zeros('f32', [4]).read(2, 3))).toBe('LUTRA_E_SHAPE');
  });

  it('refuses arrays that do not hold the element type, shared and resizable ones', () => {
    expect(codeOf(() => Tensor.from(new Uint16Array(2)))).toBe('LUTRA_E_DTYPE');
    expect(codeOf(() => Tensor.from(new Float32Array(2), [2], 'f64'))).toBe('LUTRA_E_DTYPE');
    expect(codeOf(() => Tensor.zeros('f32', [2]).write(new Float64Array(2)))).toBe('LUTRA_E_DTYPE');
    expect(codeOf(() => Tensor.from(new Float32Array(new SharedArrayBuffer(8))))).toBe('LUTRA_E_DTYPE');
    const Resizable = ArrayBuffer as unknown as new (n: number, o: { maxByteLength: number }) => ArrayBuffer;
    expect(codeOf(() => Tensor.from(new Float32Array(new Resizable(8, { maxByteLength: 64 }))))).toBe('LUTRA_E_DTYPE');
  });

  it('says that memory is out instead of ending the process', () => {
    expect(codeOf(() => Tensor.zeros('f64', [2 ** 45]))).toBe('LUTRA_E_MEMORY');
  });
});
