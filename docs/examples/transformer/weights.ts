import { type ModelConfig, qkvDim } from "./model_config.ts";

/**
 * Columns of `gateUp` come in groups of twice this size: gate columns, then the up columns they are
 * multiplied by, so that one thread of a matrix product has both factors.
 */
export const GATE_GROUP = 8;

/** The matrices of one layer, f32 and row-major `[inputs, outputs]`. */
export interface LayerWeights {
  /** `[modelDim, qkvDim]`: all query heads, then all K heads, then all V heads. */
  readonly qkv: Float32Array<ArrayBuffer>;
  /** `[heads * headDim, modelDim]`. */
  readonly output: Float32Array<ArrayBuffer>;
  /** `[modelDim, 2 * ffnDim]`, columns in groups: see {@linkcode GATE_GROUP}. */
  readonly gateUp: Float32Array<ArrayBuffer>;
  /** `[ffnDim, modelDim]`. */
  readonly down: Float32Array<ArrayBuffer>;
}

/** All weights of a model. The gain of each RMSNorm is part of the matrix that follows it. */
export interface ModelWeights {
  /** `[vocab, modelDim]`. */
  readonly embedding: Float32Array<ArrayBuffer>;
  /** One entry per layer, in order. */
  readonly layers: readonly LayerWeights[];
  /** `[modelDim, vocab]`. */
  readonly head: Float32Array<ArrayBuffer>;
}

/** Generates the weights from `config.seed`, identically on every machine. */
export function createWeights(config: ModelConfig): ModelWeights {
  const { modelDim, ffnDim, vocab } = config;
  const attentionDim = config.heads * config.headDim;
  const random = new UniformSource(config.seed);
  // Values of 1/sqrt(inputs) preserve the magnitude of activations. A layer adds values of the same
  // magnitude as the residual stream, so that logits depend on the whole context and not on the last
  // byte alone.
  return {
    embedding: random.matrix(vocab, modelDim, 1),
    layers: Array.from({ length: config.layers }, () => ({
      qkv: random.matrix(modelDim, qkvDim(config), 1 / Math.sqrt(modelDim)),
      output: random.matrix(attentionDim, modelDim, 2 / Math.sqrt(attentionDim)),
      gateUp: random.matrix(modelDim, 2 * ffnDim, 1 / Math.sqrt(modelDim)),
      down: random.matrix(ffnDim, modelDim, 2 / Math.sqrt(ffnDim)),
    })),
    head: random.matrix(modelDim, vocab, 2 / Math.sqrt(modelDim)),
  };
}

/** Uniform random numbers from a mixed 32-bit counter (a "splitmix" generator). */
class UniformSource {
  #state: number;

  constructor(seed: number) {
    this.#state = seed >>> 0;
  }

  /** A matrix of `rows * columns` numbers with mean 0 and the given standard deviation. */
  matrix(rows: number, columns: number, deviation: number): Float32Array<ArrayBuffer> {
    const values = new Float32Array(rows * columns);
    const range = deviation * Math.sqrt(12);
    let state = this.#state;
    for (let i = 0; i < values.length; i++) {
      state = (state + 0x9e3779b9) >>> 0;
      let mixed = Math.imul(state ^ (state >>> 16), 0x21f0aaad);
      mixed = Math.imul(mixed ^ (mixed >>> 15), 0x735a2d97);
      values[i] = (((mixed ^ (mixed >>> 15)) >>> 0) / 0x100000000 - 0.5) * range;
    }
    this.#state = state;
    return values;
  }
}
