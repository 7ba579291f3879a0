/**
 * What the types of the public API promise (docs/architecture.md, decision 12). Never run: `npm run types` compiles it, and
 * fails where a line below should be an error and is none.
 */
import {
  type Checkpoint,
  type Diagnosis,
  type dequantize,
  type doctor,
  type Evaluation,
  type evaluate,
  type GeneratedToken,
  type LutraError,
  loadModel,
  lutGemm,
  lutGemmAsync,
  type Model,
  type normalizeRecipe,
  type Progress,
  type QuantizationResult,
  type QuantizedTensor,
  quantize,
  type quantizeModel,
  type Recipe,
  type readCheckpoint,
  Tensor,
} from '../../lib/index.js';

/** Both types are the same. */
type Same<A, B> = (<T>() => T extends A ? 1 : 2) extends <T>() => T extends B ? 1 : 2 ? true : false;
const holds = <T extends true>(_value?: T): void => {};

export async function verbs(w: Tensor, q: QuantizedTensor, signal: AbortSignal): Promise<void> {
  const x = Tensor.from(new Float32Array(8), [2, 4]);
  holds<Same<ReturnType<typeof lutGemm>, Tensor>>();
  holds<Same<ReturnType<typeof lutGemmAsync>, Promise<Tensor>>>();
  holds<Same<ReturnType<typeof dequantize>, Tensor>>();
  holds<Same<ReturnType<typeof quantize>, Promise<QuantizedTensor>>>();
  holds<Same<ReturnType<typeof quantizeModel>, Promise<QuantizationResult>>>();
  holds<Same<ReturnType<typeof loadModel>, Promise<Model>>>();
  holds<Same<ReturnType<typeof evaluate>, Promise<Evaluation>>>();
  holds<Same<ReturnType<typeof readCheckpoint>, Promise<Checkpoint>>>();
  holds<Same<ReturnType<typeof doctor>, Diagnosis>>();
  holds<Same<ReturnType<typeof normalizeRecipe>, Recipe>>();
  holds<Same<ReturnType<Model['generate']>, AsyncIterable<GeneratedToken>>>();

  lutGemm(x, q, { mode: 'fast', out: x, threads: 2 });
  await lutGemmAsync(x, q, { signal });
  await quantize(w, { method: 'gptq', bits: 3, groupSize: 64 }, { statistics: { hessian: w }, signal });
  // @ts-expect-error: modes are a closed set
  lutGemm(x, q, { mode: 'precise' });
  // @ts-expect-error: a synchronous call cannot be aborted
  lutGemm(x, q, { signal });
  // @ts-expect-error: packed weights come second
  lutGemm(q, x);
  // @ts-expect-error: a typed array is no tensor
  lutGemm(new Float32Array(8), q);
  // @ts-expect-error: dtypes are a closed set
  Tensor.zeros('f8', [1]);
  // @ts-expect-error: tensors are made by from, copyOf and zeros
  new Tensor();
}

/** Options may be given as undefined, as a caller has them. */
export const passedOn = (dir: string, threads: number | undefined) => loadModel(dir, { threads, mode: undefined });

/** The phases of progress are told apart by `phase`. */
export function phase(event: Progress): string | number {
  if (event.phase === 'quantize') return event.relativeError;
  // @ts-expect-error: only a quantized layer has an error
  if (event.phase === 'collect') return event.relativeError;
  return event.phase;
}

/** Codes are a closed set. */
export function advice(error: LutraError): string | undefined {
  // @ts-expect-error: there is no such code
  if (error.code === 'LUTRA_ELSEWHERE') return 'never';
  return error.code === 'LUTRA_E_EXISTS' ? 'pass overwrite' : error.hint;
}
