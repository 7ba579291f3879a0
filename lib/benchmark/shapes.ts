/** The size of a linear layer's matrix, out features x in features. */
export interface Shape {
  rows: number;
  cols: number;
}

const shapes = (...names: string[]): Shape[] => names.map((name) => parseShape(name) as Shape);

/** Shapes of the layers of known models. */
export const modelShapes: Readonly<Record<string, readonly Shape[]>> = {
  'llama-2-7b': shapes('4096x4096', '11008x4096', '4096x11008'),
  'llama-3-8b': shapes('1024x4096', '4096x4096', '6144x4096', '14336x4096', '4096x14336'),
  'llama-2-70b': shapes('8192x8192', '28672x8192', '8192x28672'),
  'opt-175b': shapes('12288x12288', '49152x12288', '12288x49152'),
};

/** Reads `MxK`; null where the text is not two positive sizes. */
export function parseShape(text: string): Shape | null {
  const [, rows, cols] = /^(\d+)x(\d+)$/.exec(text) ?? [];
  return Number(rows) && Number(cols) ? { rows: Number(rows), cols: Number(cols) } : null;
}

export const shapeName = ({ rows, cols }: Shape): string => `${rows}x${cols}`;
