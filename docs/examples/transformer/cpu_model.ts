import type { KvTensorPair, LanguageModel } from "./language_model.ts";
import {
  ATTENTION_GAIN,
  checkForward,
  checkModelConfig,
  kvDim,
  type ModelConfig,
  NORM_EPSILON,
  qkvDim,
} from "./model_config.ts";
import { type Matrix, multiply } from "./multiply.ts";
import { rotaryAngles } from "./rotary.ts";
import { createWeights, GATE_GROUP, type LayerWeights, type ModelWeights } from "./weights.ts";

/** Rows per block. Weights are read once per block. */
const BLOCK_ROWS = 64;
/** The model yields to the event loop after computing for this many milliseconds. */
const YIELD_MS = 50;

type Floats = Float32Array<ArrayBuffer>;

/** A key/value pair of the CPU model: always bytes, over the memory of a Float32Array. */
export interface CpuKvTensorPair extends KvTensorPair {
  readonly key: Uint8Array<ArrayBuffer>;
  readonly value: Uint8Array<ArrayBuffer>;
}

/** A {@linkcode LanguageModel} in plain TypeScript, for machines without WebGPU. */
export interface CpuModel extends LanguageModel {
  readonly kv: readonly CpuKvTensorPair[];
}

/**
 * Creates the model in host memory.
 *
 * @throws {RangeError} If the config is not valid.
 */
export function createCpuModel(config: ModelConfig): CpuModel {
  checkModelConfig(config);
  return new CpuTransformer(config);
}

/** The matrices of one layer and its K and V. */
interface Layer {
  readonly weights: LayerWeights;
  readonly keys: Floats;
  readonly values: Floats;
}

class CpuTransformer implements CpuModel {
  readonly config: ModelConfig;
  readonly kv: readonly CpuKvTensorPair[];
  readonly #weights: ModelWeights;
  readonly #layers: readonly Layer[];
  readonly #angles: Floats;
  readonly #stream: Floats;
  readonly #normed: Floats;
  readonly #projection: Floats;
  readonly #mixed: Floats;
  readonly #gateUp: Floats;
  readonly #hidden: Floats;
  readonly #added: Floats;
  readonly #scores: Floats;
  #running = false;
  #disposed = false;
  #yielded = 0;

  constructor(config: ModelConfig) {
    this.config = config;
    const weights = createWeights(config);
    this.#weights = weights;
    this.#angles = rotaryAngles(config);
    // Scores are computed for four keys at a time, so the last token may need three neighbours.
    const keyRows = Math.ceil(config.contextTokens / 4) * 4;
    this.#layers = weights.layers.map((matrices) => ({
      weights: matrices,
      keys: new Float32Array(keyRows * kvDim(config)),
      values: new Float32Array(keyRows * kvDim(config)),
    }));
    this.kv = this.#layers.map(({ keys, values }) => ({
      key: new Uint8Array(keys.buffer),
      value: new Uint8Array(values.buffer),
    }));
    const scratch = (columns: number): Floats => new Float32Array(BLOCK_ROWS * columns);
    this.#stream = scratch(config.modelDim);
    this.#normed = scratch(config.modelDim);
    this.#projection = scratch(qkvDim(config));
    this.#mixed = scratch(config.heads * config.headDim);
    this.#gateUp = scratch(2 * config.ffnDim);
    this.#hidden = scratch(config.ffnDim);
    this.#added = scratch(config.modelDim);
    this.#scores = new Float32Array(config.heads / config.kvHeads * keyRows);
  }

  async forward(
    tokens: Uint32Array,
    start: number,
    onProgress?: (doneTokens: number, totalTokens: number) => void,
  ): Promise<Floats> {
    checkForward(this.config, tokens, start);
    if (this.#disposed) throw new Error("The model is disposed.");
    if (this.#running) throw new Error("The model runs another forward; await it first.");
    this.#running = true;
    this.#yielded = performance.now();
    try {
      const total = tokens.length - start;
      let rows = 0;
      for (let done = 0; done < total; done += rows) {
        rows = Math.min(BLOCK_ROWS, total - done);
        this.#embed(tokens.subarray(start + done, start + done + rows));
        for (const layer of this.#layers) await this.#runLayer(layer, start + done, rows);
        onProgress?.(done + rows, total);
      }
      return this.#computeLogits(rows - 1);
    } finally {
      this.#running = false;
    }
  }

  [Symbol.dispose](): void {
    this.#disposed = true;
  }

  #embed(tokens: Uint32Array): void {
    const { modelDim } = this.config;
    const { embedding } = this.#weights;
    tokens.forEach((token, row) => {
      this.#stream.set(
        embedding.subarray(token * modelDim, (token + 1) * modelDim),
        row * modelDim,
      );
    });
  }

  async #runLayer(layer: Layer, start: number, rows: number): Promise<void> {
    const { modelDim, heads, headDim, ffnDim } = this.config;
    const { qkv, output, gateUp, down } = layer.weights;
    this.#norm(rows);
    product(this.#projection, qkvDim(this.config), this.#normed, modelDim, qkv, rows);
    for (let row = 0; row < rows; row++) {
      this.#splitHeads(layer, row, start + row);
      this.#attend(layer, row, start + row);
      await this.#breathe();
    }
    product(this.#added, modelDim, this.#mixed, heads * headDim, output, rows);
    this.#addToStream(rows);
    this.#norm(rows);
    product(this.#gateUp, 2 * ffnDim, this.#normed, modelDim, gateUp, rows);
    this.#gate(rows);
    product(this.#added, modelDim, this.#hidden, ffnDim, down, rows);
    this.#addToStream(rows);
    await this.#breathe();
  }

  #norm(rows: number): void {
    const { modelDim } = this.config;
    for (let row = 0; row < rows; row++) {
      const at = row * modelDim;
      const scale = normScale(this.#stream, at, modelDim);
      for (let i = at; i < at + modelDim; i++) {
        this.#normed[i] = (this.#stream[i] ?? 0) * scale;
      }
    }
  }

  /** Normalizes and turns queries (in place) and keys, and moves keys and values to the cache. */
  #splitHeads(layer: Layer, row: number, position: number): void {
    const { heads, kvHeads, headDim } = this.config;
    const width = qkvDim(this.config);
    const projected = this.#projection.subarray(row * width, (row + 1) * width);
    const angles = this.#angles.subarray(position * headDim, (position + 1) * headDim);
    for (let head = 0; head < heads; head++) {
      turn(projected, head * headDim, headDim, ATTENTION_GAIN / Math.sqrt(headDim), angles);
    }
    for (let head = heads; head < heads + kvHeads; head++) {
      turn(projected, head * headDim, headDim, 1, angles);
    }
    const keys = heads * headDim;
    const size = kvDim(this.config);
    layer.keys.set(projected.subarray(keys, keys + size), position * size);
    layer.values.set(projected.subarray(keys + size), position * size);
  }

  /** Attention of one row over all keys up to its own, for the heads that share each K/V head. */
  #attend(layer: Layer, row: number, position: number): void {
    const { heads, kvHeads, headDim } = this.config;
    const group = heads / kvHeads;
    const size = kvDim(this.config);
    const keyCount = position + 1;
    const scored = Math.ceil(keyCount / 4) * 4;
    const scores: Matrix = { values: this.#scores, offset: 0, stride: scored };
    for (let kvHead = 0; kvHead < kvHeads; kvHead++) {
      const query = row * qkvDim(this.config) + kvHead * group * headDim;
      const mixed = row * heads * headDim + kvHead * group * headDim;
      const cached = kvHead * headDim;
      multiply(
        scores,
        { values: this.#projection, offset: query, stride: headDim },
        { values: layer.keys, offset: cached, stride: 1, columnStride: size },
        { rows: group, inner: headDim, columns: scored },
      );
      const totals = Array.from(
        { length: group },
        (_, head) => exponentiate(this.#scores, head * scored, keyCount),
      );
      multiply(
        { values: this.#mixed, offset: mixed, stride: headDim },
        scores,
        { values: layer.values, offset: cached, stride: size, columnStride: 1 },
        { rows: group, inner: keyCount, columns: headDim },
      );
      for (let i = 0; i < group * headDim; i++) {
        const total = totals[Math.floor(i / headDim)] ?? 1;
        this.#mixed[mixed + i] = (this.#mixed[mixed + i] ?? 0) / total;
      }
    }
  }

  #gate(rows: number): void {
    const { ffnDim } = this.config;
    for (let i = 0; i < rows * ffnDim; i++) {
      const gateAt = i + Math.floor(i / GATE_GROUP) * GATE_GROUP;
      const gate = this.#gateUp[gateAt] ?? 0;
      this.#hidden[i] = gate / (1 + Math.exp(-gate)) * (this.#gateUp[gateAt + GATE_GROUP] ?? 0);
    }
  }

  #addToStream(rows: number): void {
    for (let i = 0; i < rows * this.config.modelDim; i++) {
      this.#stream[i] = (this.#stream[i] ?? 0) + (this.#added[i] ?? 0);
    }
  }

  #computeLogits(row: number): Floats {
    const { modelDim, vocab } = this.config;
    this.#norm(row + 1);
    const logits = new Float32Array(vocab);
    const normed = this.#normed.subarray(row * modelDim, (row + 1) * modelDim);
    product(logits, vocab, normed, modelDim, this.#weights.head, 1);
    return logits;
  }

  async #breathe(): Promise<void> {
    if (performance.now() - this.#yielded < YIELD_MS) return;
    await new Promise<void>((resolve) => setTimeout(resolve, 0));
    this.#yielded = performance.now();
  }
}

/** `result[row] = input[row] * weights` for row-major matrices without gaps. */
function product(
  result: Floats,
  columns: number,
  input: Floats,
  inner: number,
  weights: Floats,
  rows: number,
): void {
  multiply(
    { values: result, offset: 0, stride: columns },
    { values: input, offset: 0, stride: inner },
    { values: weights, offset: 0, stride: columns, columnStride: 1 },
    { rows, inner, columns },
  );
}

/** The RMSNorm factor of a row of `size` floats. */
function normScale(values: Floats, offset: number, size: number): number {
  let squares = 0;
  for (let i = offset; i < offset + size; i++) squares += (values[i] ?? 0) ** 2;
  return 1 / Math.sqrt(squares / size + NORM_EPSILON);
}

/** RMSNorm, scale and rotary position of one head, in place. */
function turn(values: Floats, offset: number, size: number, gain: number, angles: Floats): void {
  const scale = normScale(values, offset, size) * gain;
  const half = size / 2;
  for (let i = 0; i < half; i++) {
    const low = (values[offset + i] ?? 0) * scale;
    const high = (values[offset + half + i] ?? 0) * scale;
    const cosine = angles[i] ?? 0;
    const sine = angles[half + i] ?? 0;
    values[offset + i] = low * cosine - high * sine;
    values[offset + half + i] = high * cosine + low * sine;
  }
}

/** Replaces scores by their exponentials and returns the sum: see {@linkcode ATTENTION_GAIN}. */
function exponentiate(scores: Floats, offset: number, count: number): number {
  let total = 0;
  for (let i = offset; i < offset + count; i++) {
    const weight = Math.exp(scores[i] ?? 0);
    scores[i] = weight;
    total += weight;
  }
  return total;
}
