/** The shape of a transformer and the seed of its weights, which determine the model completely. */
export interface ModelConfig {
  /** Number of transformer layers, at least 1. */
  readonly layers: number;
  /** Width of the residual stream in floats, a multiple of 8. */
  readonly modelDim: number;
  /** Query heads per layer, a multiple of `kvHeads`. */
  readonly heads: number;
  /** Key/value heads per layer; `heads / kvHeads` query heads share one. */
  readonly kvHeads: number;
  /** Floats per head, a multiple of 8. `kvHeads * headDim` is at most 256. */
  readonly headDim: number;
  /** Hidden floats of the SwiGLU block, a multiple of 8. */
  readonly ffnDim: number;
  /** Number of token ids, a multiple of 4. Bytes are the tokens, so 256 in the demo. */
  readonly vocab: number;
  /** Maximum number of tokens of a sequence, 1 to 65536. */
  readonly contextTokens: number;
  /** Base of the rotary position frequencies, above 1. */
  readonly ropeBase: number;
  /** Seed of the weights, an unsigned 32-bit integer. */
  readonly seed: number;
}

/**
 * The model of the demo: 2.5 KiB of keys and values per token, and a prefill of a few seconds for a
 * few thousand tokens on two CPU cores with a software Vulkan driver.
 */
export const DEMO_CONFIG: ModelConfig = {
  layers: 5,
  modelDim: 256,
  heads: 8,
  kvHeads: 2,
  headDim: 32,
  ffnDim: 704,
  vocab: 256,
  contextTokens: 16384,
  ropeBase: 10000,
  seed: 20261,
};

/** Added to the mean square in every RMSNorm, so that a row of zeros stays finite. */
export const NORM_EPSILON = 1e-6;

/**
 * Scale of a query after its RMSNorm. Query and key have length `sqrt(headDim)` then, so no score
 * exceeds `ATTENTION_GAIN * sqrt(headDim)` and its exponential needs no running maximum.
 */
export const ATTENTION_GAIN = 3;

/** Floats of K (or of V) that one token takes in one layer. */
export function kvDim(config: ModelConfig): number {
  return config.kvHeads * config.headDim;
}

/**
 * Floats of one row of the fused projection: all query heads, then all K heads, then all V heads.
 */
export function qkvDim(config: ModelConfig): number {
  return (config.heads + 2 * config.kvHeads) * config.headDim;
}

/** Bytes of K and V together that one token takes over all layers. */
export function kvBytesPerToken(config: ModelConfig): number {
  return 2 * config.layers * kvDim(config) * Float32Array.BYTES_PER_ELEMENT;
}

/**
 * Checks the constraints of the models.
 *
 * @throws {RangeError} If a field is out of the range in its comment.
 */
export function checkModelConfig(config: ModelConfig): void {
  checkField(config, "layers", 1, 256, 1);
  checkField(config, "modelDim", 8, 8192, 8);
  checkField(config, "kvHeads", 1, 256, 1);
  checkField(config, "heads", 1, 1024, config.kvHeads);
  checkField(config, "headDim", 8, 256, 8);
  checkField(config, "ffnDim", 8, 8192, 8);
  checkField(config, "vocab", 4, 8192, 4);
  checkField(config, "contextTokens", 1, 65536, 1);
  checkField(config, "seed", 0, 0xffffffff, 1);
  if (kvDim(config) > 256) {
    throw new RangeError(`kvHeads * headDim must be at most 256, received ${kvDim(config)}.`);
  }
  if (!(config.ropeBase > 1)) {
    throw new RangeError(`ropeBase must be above 1, received ${config.ropeBase}.`);
  }
}

function checkField(
  config: ModelConfig,
  name: keyof ModelConfig,
  min: number,
  max: number,
  multipleOf: number,
): void {
  const value = config[name];
  if (Number.isInteger(value) && value >= min && value <= max && value % multipleOf === 0) return;
  throw new RangeError(
    `${name} must be a multiple of ${multipleOf} from ${min} to ${max}, received ${value}.`,
  );
}

/**
 * Checks the arguments of `LanguageModel.forward`.
 *
 * @throws {RangeError} If the number of tokens, `start` or a token id is out of range.
 */
export function checkForward(config: ModelConfig, tokens: Uint32Array, start: number): void {
  if (tokens.length < 1 || tokens.length > config.contextTokens) {
    throw new RangeError(
      `tokens must hold 1 to ${config.contextTokens} ids, received ${tokens.length}.`,
    );
  }
  if (!Number.isInteger(start) || start < 0 || start >= tokens.length) {
    throw new RangeError(
      `start must be an integer from 0 to ${tokens.length - 1}, received ${start}.`,
    );
  }
  const bad = tokens.findIndex((id) => id >= config.vocab);
  if (bad >= 0) {
    throw new RangeError(
      `Token ids must be below ${config.vocab}, received ${tokens[bad]} at position ${bad}.`,
    );
  }
}
