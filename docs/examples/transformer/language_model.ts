import type { ModelConfig } from "./model_config.ts";

/**
 * The keys and values of one layer. Both are token-major `[contextTokens, kvHeads,
 * headDim]` f32: token `t` starts at byte `t * kvHeads * headDim * 4`. A buffer may be a little
 * longer than the context needs.
 */
export interface KvTensorPair {
  /** The keys, with the rotary position already applied. */
  readonly key: GPUBuffer | Uint8Array<ArrayBuffer>;
  /** The values. */
  readonly value: GPUBuffer | Uint8Array<ArrayBuffer>;
}

/**
 * A decoder-only transformer over byte tokens with a key/value cache.
 *
 * Every row is computed with the same floating point operations in the same order, regardless of how
 * a prompt is split into calls: `forward(tokens, 0)` returns the same bits as
 * `forward(tokens.slice(0, k), 0)` followed by `forward(tokens, k)`.
 */
export interface LanguageModel extends Disposable {
  /** The shape of the model. */
  readonly config: ModelConfig;
  /**
   * Keys and values per layer. Owned by the model. A cache reads and writes them directly while no
   * `forward` is running.
   */
  readonly kv: readonly KvTensorPair[];
  /**
   * Computes rows `start` to `tokens.length - 1` and writes their keys and values. Those of tokens
   * `0` to `start - 1` must already be in `kv`.
   *
   * @param tokens All tokens of the sequence, including those before `start`.
   * @param start Index of the first row to compute.
   * @param onProgress Called periodically with the number of computed rows.
   * @returns The logits of the last row: `vocab` floats.
   * @throws {RangeError} If the number of tokens, `start` or a token id is out of range.
   * @throws {Error} If the model is disposed or another `forward` is running.
   */
  forward(
    tokens: Uint32Array,
    start: number,
    onProgress?: (doneTokens: number, totalTokens: number) => void,
  ): Promise<Float32Array<ArrayBuffer>>;
}
