import { cpSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Random } from '../../../lib/calibration/index.js';
import {
  type Checkpoint,
  nativeDtypes,
  planSafetensors,
  readCheckpoint,
  SafetensorsWriter,
  storedDtypes,
} from '../../../lib/formats/index.js';
import { loadModel } from '../../../lib/inference/index.js';
import { buildGraph, type ModelGraph, parseConfig } from '../../../lib/models/index.js';
import type { Weight } from '../../../lib/ops/index.js';
import { asFloat32, type TensorSource } from '../../../lib/quantization/index.js';
import type { Dtype, Tensor } from '../../../lib/tensor/index.js';

/** Norms and biases that differ from channel to channel, and embeddings with a few large channels. */
export function lively(name: string, values: Float32Array): void {
  const random = new Random(name.length + values.length);
  if (name.includes('norm')) for (let i = 0; i < values.length; i++) values[i] = 0.3 + 2 * random.next();
  if (name.endsWith('.bias')) for (let i = 0; i < values.length; i++) values[i] = random.next() - 0.5;
}

/** A checkpoint's tensors, as the pipeline hands them to transforms. */
export function sourceOf(checkpoint: Checkpoint): TensorSource {
  const config = parseConfig(checkpoint.config, 'config.json');
  return {
    graph: buildGraph(config, (name) => checkpoint.has(name)),
    changed: new Set(),
    dtype: (name) => nativeDtypes[checkpoint.tensor(name).dtype!]!,
    load: async (name, options) => (await checkpoint.load(name, options)) as Tensor,
  };
}

/** The tensors that a block computes with: biases in f32. */
export async function blockWeights(source: TensorSource, index: number): Promise<Map<string, Weight>> {
  const weights = new Map<string, Weight>();
  for (const name of source.graph.blocks[index]!.tensors) {
    const stored = await source.load(name, {});
    weights.set(name, name.endsWith('.bias') ? await asFloat32(stored, { where: name }) : stored);
  }
  return weights;
}

/** Writes a model of these tensors beside the files of `like`. */
export async function writeModel(
  directory: string,
  like: string,
  graph: ModelGraph,
  load: (name: string) => Promise<Tensor>,
): Promise<string> {
  mkdirSync(directory);
  for (const file of ['tokenizer.json', 'tokenizer_config.json']) cpSync(join(like, file), join(directory, file));
  const { quantization_config: _, ...config } = JSON.parse(readFileSync(join(like, 'config.json'), 'utf8'));
  writeFileSync(join(directory, 'config.json'), JSON.stringify({ ...config, tie_word_embeddings: graph.tied }));
  const tensors = new Map<string, Tensor>();
  for (const name of graph.shapes.keys()) tensors.set(name, await load(name));
  const planned = [...tensors].map(([name, { dtype, shape }]) => ({
    name,
    dtype: storedDtypes[dtype as Dtype],
    shape: [...shape],
  }));
  const writer = await SafetensorsWriter.create(directory, planSafetensors(planned));
  for (const [name, tensor] of tensors) {
    await writer.write(name, tensor);
    tensor.dispose();
  }
  await writer.close();
  return directory;
}

/** Logits f32 of a fixed sequence of ids below 60. */
export async function logitsOf(directory: string): Promise<Float32Array> {
  const model = await loadModel(directory, { mode: 'exact' });
  try {
    const random = new Random(5);
    using logits = await model.logits(Array.from({ length: 24 }, () => random.below(60)));
    return logits.read() as Float32Array;
  } finally {
    model.dispose();
  }
}

export async function withCheckpoint<T>(directory: string, use: (source: TensorSource) => Promise<T>): Promise<T> {
  await using checkpoint = await readCheckpoint(directory);
  return await use(sourceOf(checkpoint));
}

export function largestDifference(a: Float32Array, b: Float32Array): number {
  return a.reduce((most, value, i) => Math.max(most, Math.abs(value - b[i]!)), 0);
}
