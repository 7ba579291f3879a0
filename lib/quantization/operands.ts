import { type LutraErrorCode, lutraError } from '../errors.js';
import { Tensor, triangleRows } from '../tensor/index.js';
import type { Statistics } from './method.js';

/**
 * Checks what `quantize` was handed.
 *
 * @throws `LUTRA_E_DTYPE`, `LUTRA_E_SHAPE`, `LUTRA_E_OPTION`
 */
export function checkOperands(w: Tensor, { hessian, rowHessian, tokens }: Statistics, where: string): void {
  if (tokens !== undefined && !(Number.isSafeInteger(tokens) && tokens > 0))
    throw fault('LUTRA_E_OPTION', 'not a number of tokens', 'statistics.tokens', tokens, 'a whole number from 1');
  for (const [name, operand] of Object.entries({ w, hessian, rowHessian }))
    if (!(operand instanceof Tensor) && (name === 'w' || operand !== undefined))
      throw lutraError('LUTRA_E_DTYPE', {
        message: `${name} is no Tensor`,
        where,
        hint: 'See a typed array as a tensor with Tensor.from.',
      });
  if (w.shape.length !== 2 || w.elements === 0)
    throw fault('LUTRA_E_SHAPE', 'a weight matrix is needed', where, `[${w.shape}]`, '[outFeatures, inFeatures]');
  if (!['f32', 'f16', 'bf16'].includes(w.dtype))
    throw fault('LUTRA_E_DTYPE', 'weights cannot be of this type', where, w.dtype, 'f32, f16 or bf16');
  if (hessian) checkHessian(w, hessian, where);
  if (rowHessian) checkRowHessian(w, rowHessian, hessian, where);
}

function checkHessian(w: Tensor, hessian: Tensor, where: string): void {
  const [m = 0, k = 0] = w.shape;
  if (hessian.dtype !== 'f64') throw fault('LUTRA_E_DTYPE', 'the Hessian is f64', where, hessian.dtype, 'f64');
  const { shape } = hessian;
  const heads = shape.length === 3 ? (shape[0] ?? 0) : 1;
  const fits = triangleRows({ shape: shape.length === 3 ? shape.slice(1) : shape }) === k;
  if (!fits)
    throw fault(
      'LUTRA_E_SHAPE',
      'the Hessian does not fit the weights',
      where,
      `[${shape}]`,
      `[${k}, ${k}], or the packed triangle`,
    );
  if (heads < 1 || m % heads)
    throw fault('LUTRA_E_SHAPE', 'the weights have no such number of heads', where, heads, `a divisor of ${m}`);
}

function checkRowHessian(w: Tensor, rowHessian: Tensor, hessian: Tensor | undefined, where: string): void {
  const [m = 0] = w.shape;
  if (rowHessian.dtype !== 'f64')
    throw fault('LUTRA_E_DTYPE', 'the row Hessian is f64', where, rowHessian.dtype, 'f64');
  const { shape } = rowHessian;
  const [heads = 0, d = 0] = shape;
  if (shape.length !== 3 || heads * d !== m || shape[2] !== d)
    throw fault(
      'LUTRA_E_SHAPE',
      'the row Hessian does not fit the weights',
      where,
      `[${shape}]`,
      `[heads, d, d] with heads · d = ${m}`,
    );
  if (hessian?.shape.length === 3 && hessian.shape[0] !== heads)
    throw fault('LUTRA_E_SHAPE', 'both Hessians have the same heads', where, heads, hessian.shape[0]);
}

function fault(code: LutraErrorCode, message: string, where: string, found: unknown, expected: unknown): Error {
  return lutraError(code, { message, where, found: String(found), expected: String(expected) });
}
