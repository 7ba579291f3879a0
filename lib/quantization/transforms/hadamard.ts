import { z } from 'zod';
import { lutraError } from '../../errors.js';
import { type ModelGraph, modelFlow, type Space, type TensorFlow, untied } from '../../models/index.js';
import { type Dtype, Tensor } from '../../tensor/index.js';
import { refuseNonFinite } from '../finite.js';
import type { Call, ModelTransform, TensorSource } from '../method.js';
import { disposeOnFailure } from '../passes.js';
import { numbersOf, type RotationAxis, rotate, scaleMatrix } from './passes.js';

const options = z.strictObject({
  /** Draws the signs. */
  seed: z.int().min(0).default(0),
  /** Whether the heads of values are rotated too, between v and o. */
  heads: z.boolean().default(true),
});

type HadamardOptions = z.infer<typeof options>;

/** Elements that are fp64 at once while a matrix is made row by row. */
const panelElements = 2 ** 22;
/** The largest odd factor of a size that native code rotates. */
const largestOddFactor = 1024;

/**
 * Rotates the residual stream by a randomised Hadamard matrix (QuaRot, Ashkboos et al., arXiv 2404.00456; QuIP#, Tseng et al.,
 * arXiv 2402.04396), which spreads outliers over all channels: norms are folded into the layers behind them, and a norm
 * without weights commutes with every rotation. The embedding and the output layer are rotated differently, so that
 * tied ones become two. Everything is computed in fp64 and rounded once.
 */
export const hadamard: ModelTransform<HadamardOptions> = {
  name: 'hadamard',
  scope: 'model',
  options,
  apply(source, { seed, heads }) {
    const { hiddenSize, headDim } = source.graph.config;
    requireSize(hiddenSize, 'hidden_size');
    if (heads) requireSize(headDim, 'head_dim');
    return new RotatedSource(source, {
      residual: randomSigns(hiddenSize, seed),
      valueHeads: heads ? randomSigns(headDim, seed + 1) : null,
      own: null,
    });
  },
};

type Rotations = Record<Space, Float64Array | null>;

class RotatedSource implements TensorSource {
  readonly graph: ModelGraph;
  readonly changed: ReadonlySet<string>;
  readonly #flow: ReadonlyMap<string, TensorFlow>;

  constructor(
    private readonly source: TensorSource,
    private readonly rotations: Rotations,
  ) {
    this.graph = untied(source.graph);
    this.#flow = modelFlow(this.graph);
    const linears = new Set(this.graph.blocks.flatMap((block) => block.linears.map(({ name }) => name)));
    const changes = ([name, flow]: [string, TensorFlow]) =>
      !linears.has(name) && (flow.kind !== 'bias' || rotations[flow.rows] !== null);
    const names = [...this.#flow].filter(changes).map(([name]) => name);
    this.changed = new Set([...source.changed, ...names].filter((name) => this.graph.shapes.has(name)));
  }

  dtype(name: string): Dtype {
    return this.source.dtype(this.#origin(name));
  }

  async load(name: string, call: Omit<Call, 'where'>): Promise<Tensor> {
    const flow = this.#flow.get(name);
    const stored = await this.source.load(this.#origin(name), call);
    if (!flow || (flow.kind === 'bias' && !this.rotations[flow.rows])) return stored;
    try {
      if (flow.kind === 'norm') return ones(stored);
      return await this.#rotated(stored, flow, { ...call, where: name });
    } finally {
      stored.dispose();
    }
  }

  /** Two tensors are made of tied embeddings. */
  #origin(name: string): string {
    const { graph } = this.source;
    return graph.tied && (name === this.graph.lmHead || name === this.graph.embedding) ? graph.embedding : name;
  }

  async #rotated(x: Tensor, flow: Exclude<TensorFlow, { kind: 'norm' }>, call: Call): Promise<Tensor> {
    const isLayer = flow.kind === 'matrix' && this.graph.blocks.some(({ tensors }) => tensors.includes(call.where));
    const y = Tensor.zeros(isLayer ? 'f32' : x.dtype, x.shape);
    return await disposeOnFailure([y], async () => {
      const steps: Step[] = [];
      if (flow.kind === 'matrix') {
        if (flow.norm) steps.push({ columns: await this.#norm(flow.norm, call) });
        steps.push(...this.#along('columns', flow.columns));
      }
      steps.push(...this.#along('rows', flow.rows));
      using from = x.reshape([x.shape[0] ?? 0, x.shape[1] ?? 1]);
      using to = y.reshape(from.shape);
      // Rows do not know of each other unless vectors run down them.
      const panel = steps.some((step) => 'signs' in step && step.axis === 'rows')
        ? Number.POSITIVE_INFINITY
        : panelElements;
      await byRows(from, to, panel, (some, into) => inTurn(some, steps, into, call));
      await refuseNonFinite(y, call);
      return y;
    });
  }

  #along(axis: RotationAxis, space: Space): Step[] {
    const signs = this.rotations[space];
    return signs ? [{ axis, signs }] : [];
  }

  async #norm(name: string, call: Call): Promise<Float64Array> {
    using norm = await this.source.load(name, call);
    return await numbersOf(norm, { ...call, where: name });
  }
}

/** One factor that a matrix is multiplied with. */
type Step = { columns: Float64Array } | { axis: RotationAxis; signs: Float64Array };

/** Applies the steps one after the other: between them the matrix is f64. */
async function inTurn(x: Tensor, steps: readonly Step[], y: Tensor, call: Call): Promise<void> {
  let from = x;
  try {
    for (const [index, step] of steps.entries()) {
      const to = index === steps.length - 1 ? y : Tensor.zeros('f64', x.shape);
      await disposeOnFailure(to === y ? [] : [to], () =>
        'signs' in step ? rotate(from, step.axis, step.signs, to, call) : scaleMatrix(from, step, to, call),
      );
      if (from !== x) from.dispose();
      from = to;
    }
  } finally {
    if (from !== x && from !== y) from.dispose();
  }
}

async function byRows(
  x: Tensor,
  y: Tensor,
  elements: number,
  work: (x: Tensor, y: Tensor) => Promise<void>,
): Promise<void> {
  const [m = 0, k = 1] = x.shape;
  const rows = Math.max(1, Math.floor(elements / k));
  for (let begin = 0; begin < m; begin += rows) {
    const end = Math.min(m, begin + rows);
    using from = x.rows(begin, end);
    using to = y.rows(begin, end);
    await work(from, to);
  }
}

function ones({ dtype, shape }: Tensor): Tensor {
  const tensor = Tensor.zeros(dtype, shape);
  tensor.fill(1);
  return tensor;
}

function requireSize(size: number, field: string): void {
  let odd = size;
  while (odd % 2 === 0) odd /= 2;
  if (odd > largestOddFactor)
    throw lutraError('LUTRA_E_UNSUPPORTED_MODEL', {
      message: `hadamard rotates no ${field} with so large an odd factor`,
      where: `config.json: ${field}`,
      found: `${size}, ${odd} times a power of two`,
      expected: `an odd factor of at most ${largestOddFactor}`,
    });
}

/** Signs for n elements: the top bit of MurmurHash3's finaliser on a Weyl sequence that the seed begins. */
function randomSigns(n: number, seed: number): Float64Array {
  let counter = (seed >>> 0) ^ Math.imul(Math.floor(seed / 2 ** 32), 0x85ebca6b);
  return Float64Array.from({ length: n }, () => {
    counter = (counter + 0x9e3779b9) | 0;
    let mixed = Math.imul(counter ^ (counter >>> 16), 0x85ebca6b);
    mixed = Math.imul(mixed ^ (mixed >>> 13), 0xc2b2ae35);
    return (mixed ^ (mixed >>> 16)) < 0 ? -1 : 1;
  });
}
