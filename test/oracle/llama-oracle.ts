/**
 * A plain fp64 forward pass of the Llama family, one token at a time, straight from the papers and from nothing of
 * lib/: the oracle that the library's forward is compared with. Slow, and meant to be read.
 */

/** A dense tensor, row-major. */
export interface OracleTensor {
  readonly data: ArrayLike<number>;
  readonly shape: readonly number[];
}

export type OracleWeights = ReadonlyMap<string, OracleTensor>;

/** The fields of config.json that the oracle reads. */
export interface OracleConfig {
  model_type: string;
  hidden_size: number;
  intermediate_size: number;
  num_hidden_layers: number;
  num_attention_heads: number;
  num_key_value_heads?: number;
  head_dim?: number | null;
  rms_norm_eps?: number;
  rope_theta?: number;
  rope_scaling?: RopeFields | null;
  rope_parameters?: RopeFields | null;
  sliding_window?: number | null;
}

interface RopeFields {
  type?: string;
  rope_type?: string;
  rope_theta?: number;
  factor?: number;
  low_freq_factor?: number;
  high_freq_factor?: number;
  original_max_position_embeddings?: number;
}

interface Past {
  keys: Float64Array[];
  values: Float64Array[];
}

export class LlamaOracle {
  readonly #config: OracleConfig;
  readonly #weights: OracleWeights;
  readonly #headDim: number;
  readonly #kvHeads: number;
  readonly #frequencies: number[];
  readonly #past: Past[];
  #position = 0;

  constructor(config: OracleConfig, weights: OracleWeights) {
    this.#config = config;
    this.#weights = weights;
    this.#headDim = config.head_dim ?? config.hidden_size / config.num_attention_heads;
    this.#kvHeads = config.num_key_value_heads ?? config.num_attention_heads;
    this.#frequencies = frequencies(config, this.#headDim);
    this.#past = Array.from({ length: config.num_hidden_layers }, () => ({ keys: [], values: [] }));
  }

  /** Logits after `id`, which becomes the next position of the sequence. */
  step(id: number): Float64Array {
    const table = this.#matrix('model.embed_tokens.weight', 'lm_head.weight');
    const width = this.#config.hidden_size;
    let hidden = Float64Array.from({ length: width }, (_, i) => table.data[id * width + i]!);
    for (let layer = 0; layer < this.#config.num_hidden_layers; layer++) {
      const prefix = `model.layers.${layer}.`;
      const attended = this.#attention(prefix, this.#past[layer]!, this.#norm(hidden, `${prefix}input_layernorm`));
      hidden = hidden.map((h, i) => h + attended[i]!);
      const fed = this.#feedForward(prefix, this.#norm(hidden, `${prefix}post_attention_layernorm`));
      hidden = hidden.map((h, i) => h + fed[i]!);
    }
    this.#position++;
    return multiply(this.#matrix('lm_head.weight', 'model.embed_tokens.weight'), this.#norm(hidden, 'model.norm'));
  }

  /** Logits after every id of a sequence that starts at the beginning. */
  forward(ids: readonly number[]): Float64Array[] {
    return ids.map((id) => this.step(id));
  }

  #attention(prefix: string, past: Past, x: Float64Array): Float64Array {
    const q = this.#linear(`${prefix}self_attn.q_proj`, x);
    const k = this.#linear(`${prefix}self_attn.k_proj`, x);
    this.#rotate(q);
    this.#rotate(k);
    past.keys.push(k);
    past.values.push(this.#linear(`${prefix}self_attn.v_proj`, x));
    const { num_attention_heads: heads, sliding_window: window } = this.#config;
    const last = this.#position;
    const first = window ? Math.max(0, last - window + 1) : 0;
    const out = new Float64Array(heads * this.#headDim);
    for (let head = 0; head < heads; head++) this.#attendHead(q, past, head, first, last, out);
    return this.#linear(`${prefix}self_attn.o_proj`, out);
  }

  #attendHead(q: Float64Array, past: Past, head: number, first: number, last: number, out: Float64Array): void {
    const size = this.#headDim;
    const shared = Math.floor(head / (this.#config.num_attention_heads / this.#kvHeads));
    const scores: number[] = [];
    for (let t = first; t <= last; t++) {
      let dot = 0;
      for (let i = 0; i < size; i++) dot += q[head * size + i]! * past.keys[t]![shared * size + i]!;
      scores.push(dot / Math.sqrt(size));
    }
    const largest = Math.max(...scores);
    const weights = scores.map((score) => Math.exp(score - largest));
    const total = weights.reduce((sum, weight) => sum + weight, 0);
    for (let t = first; t <= last; t++)
      for (let i = 0; i < size; i++)
        out[head * size + i]! += (weights[t - first]! / total) * past.values[t]![shared * size + i]!;
  }

  #feedForward(prefix: string, x: Float64Array): Float64Array {
    const gate = this.#linear(`${prefix}mlp.gate_proj`, x);
    const up = this.#linear(`${prefix}mlp.up_proj`, x);
    return this.#linear(
      `${prefix}mlp.down_proj`,
      gate.map((g, i) => (g / (1 + Math.exp(-g))) * up[i]!),
    );
  }

  /** Half-split layout: entry i of a head turns together with entry i + headDim / 2. */
  #rotate(x: Float64Array): void {
    const half = this.#headDim / 2;
    for (let start = 0; start < x.length; start += this.#headDim)
      for (let i = 0; i < half; i++) {
        const angle = this.#position * this.#frequencies[i]!;
        const [a, b] = [x[start + i]!, x[start + half + i]!];
        x[start + i] = a * Math.cos(angle) - b * Math.sin(angle);
        x[start + half + i] = b * Math.cos(angle) + a * Math.sin(angle);
      }
  }

  #norm(x: Float64Array, name: string): Float64Array {
    const weight = this.#matrix(`${name}.weight`);
    const meanSquare = x.reduce((sum, value) => sum + value * value, 0) / x.length;
    const scale = 1 / Math.sqrt(meanSquare + (this.#config.rms_norm_eps ?? 1e-6));
    return x.map((value, i) => value * scale * weight.data[i]!);
  }

  #linear(name: string, x: Float64Array): Float64Array {
    const y = multiply(this.#matrix(`${name}.weight`), x);
    const bias = this.#weights.get(`${name}.bias`);
    return bias ? y.map((value, i) => value + bias.data[i]!) : y;
  }

  #matrix(...names: string[]): OracleTensor {
    for (const name of names) {
      const found = this.#weights.get(name);
      if (found) return found;
    }
    throw new Error(`the oracle has no ${names.join(' or ')}`);
  }
}

function multiply(matrix: OracleTensor, x: Float64Array): Float64Array {
  const { data } = matrix;
  const cols = x.length;
  return Float64Array.from({ length: matrix.shape[0]! }, (_, row) => {
    let sum = 0;
    for (let col = 0; col < cols; col++) sum += data[row * cols + col]! * x[col]!;
    return sum;
  });
}

function frequencies(config: OracleConfig, headDim: number): number[] {
  const rope = config.rope_parameters ?? config.rope_scaling ?? {};
  const theta = config.rope_parameters?.rope_theta ?? config.rope_theta ?? 10000;
  const type = rope.rope_type ?? rope.type ?? 'default';
  return Array.from({ length: headDim / 2 }, (_, i) => {
    const plain = 1 / theta ** ((2 * i) / headDim);
    if (type === 'default') return plain;
    if (type === 'linear') return plain / rope.factor!;
    if (type !== 'llama3') throw new Error(`the oracle knows no rope of type ${type}`);
    return llama3Frequency(plain, rope);
  });
}

/** The three ranges of wavelengths of Llama 3.1's scaling. */
function llama3Frequency(plain: number, rope: RopeFields): number {
  const wavelength = (2 * Math.PI) / plain;
  const context = rope.original_max_position_embeddings!;
  const [low, high] = [rope.low_freq_factor!, rope.high_freq_factor!];
  if (wavelength > context / low) return plain / rope.factor!;
  if (wavelength < context / high) return plain;
  const smooth = (context / wavelength - low) / (high - low);
  return ((1 - smooth) * plain) / rope.factor! + smooth * plain;
}
