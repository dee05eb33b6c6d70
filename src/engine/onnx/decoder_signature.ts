import type { KvDtype } from "../../keys/kv_layout.ts";
import type { OrtSession, OrtValueMetadata } from "./ort.ts";

/** Thrown for a model whose prefixes cannot be cached. The message says why. */
export class UnsupportedModelError extends Error {
  /** The name of the class. */
  override readonly name = "UnsupportedModelError";
}

/** The parsed `config.json` of a Hugging Face model. */
export type ModelConfig = Readonly<Record<string, unknown>>;

/** A value of a model's config, or of its `text_config`. */
function valueIn(config: ModelConfig, name: string): unknown {
  const { "text_config": text } = config;
  return config[name] ?? (text as ModelConfig | null | undefined)?.[name] ?? undefined;
}

/**
 * Reads a positive integer from a model's config, or from its `text_config`.
 *
 * @returns `undefined` if the config does not contain it.
 * @throws {UnsupportedModelError} If the value is not a positive integer.
 */
export function countIn(config: ModelConfig, name: string): number | undefined {
  const value = valueIn(config, name);
  if (value === undefined || isCount(value)) return value;
  throw new UnsupportedModelError(
    `${name} of config.json must be a positive integer: received ${typeof value}`,
  );
}

function isCount(value: unknown): value is number {
  return Number.isSafeInteger(value) && Number(value) > 0;
}

/** How many tokens the layers with sliding windows attend to; `undefined` if there are none. */
function slidingWindowOf(config: ModelConfig): number | undefined {
  const types = valueIn(config, "layer_types");
  if (valueIn(config, "use_sliding_window") === false) return undefined;
  if (Array.isArray(types) && !types.includes("sliding_attention")) return undefined;
  const window = valueIn(config, "sliding_window");
  return isCount(window) ? window : undefined;
}

/** The error for a model that returns K and V of `received` tokens after `tokens` tokens. */
export function cutPastError(
  { slidingWindow: window = Infinity }: DecoderSignature,
  tokens: number,
  received: number | undefined,
): UnsupportedModelError {
  const advice = window >= tokens
    ? ""
    : `; its sliding_window is ${window}: use an export that returns all, or sequences of at most ` +
      `${window} tokens`;
  return new UnsupportedModelError(
    `Model must return K and V of all ${tokens} tokens: received those of ${received}${advice}`,
  );
}

/** Inputs and outputs of a decoder session. */
export interface DecoderSignature {
  /** Number of layers. */
  readonly layers: number;
  /** Number of K (and V) heads per layer. */
  readonly kvHeads: number;
  /** Elements per head. */
  readonly headDim: number;
  /** Size of the vocabulary. Token ids are smaller. */
  readonly vocabulary: number;
  /** Element type of K and V, as named by the cache. */
  readonly dtype: KvDtype;
  /** Element type of K and V, as named by the runtime. */
  readonly ortType: string;
  /** Names of K and V of each layer, as inputs and as outputs. */
  readonly kv: readonly { readonly key: KvNames; readonly value: KvNames }[];
  /** The optional inputs of the model. */
  readonly inputs: ReadonlySet<string>;
  /** Tokens that the layers with sliding windows attend to, if the config names such layers. */
  readonly slidingWindow: number | undefined;
}

/** Names of a K or V tensor. */
export interface KvNames {
  /** Name of the input. */
  readonly past: string;
  /** Name of the output. */
  readonly present: string;
}

/** Supported inputs besides K and V. */
const KNOWN_INPUTS = ["input_ids", "attention_mask", "position_ids", "num_logits_to_keep"];
const DTYPES: Readonly<Record<string, KvDtype>> = { float32: "f32", float16: "f16" };

/**
 * Reads the signature of a session, using the names exported by Optimum and transformers.js:
 * `past_key_values.N.key`, `past_key_values.N.value`, `present.N.key`, `present.N.value`.
 *
 * @throws {UnsupportedModelError} If K and V of a prefix may not be the complete state of the model.
 */
export function readSignature(
  session: Pick<OrtSession, "inputMetadata" | "outputMetadata">,
  config: ModelConfig = {},
): DecoderSignature {
  const inputs = byName(session.inputMetadata);
  const outputs = byName(session.outputMetadata);
  const layers = [...inputs.keys()].filter((name) => /^past_key_values\.\d+\.key$/.test(name));
  if (layers.length === 0) {
    throw new UnsupportedModelError(
      "Model must have inputs named past_key_values.0.key and so on: export it with past (for " +
        `Optimum: the task text-generation-with-past); received ${[...inputs.keys()].join(", ")}`,
    );
  }
  const kv = layers.map((_, layer) => ({
    key: namesOf(layer, "key"),
    value: namesOf(layer, "value"),
  }));
  const names = kv.flatMap(({ key, value }) => [key, value]);
  const known = new Set([...KNOWN_INPUTS, ...names.map(({ past }) => past)]);
  const unknown = [...inputs.keys()].filter((name) => !known.has(name));
  if (unknown.length > 0) {
    throw new UnsupportedModelError(
      "Model must have no state besides K and V, and no inputs besides " +
        `${KNOWN_INPUTS.join(", ")}: received ${unknown.join(", ")}`,
    );
  }
  required(inputs, "input", "input_ids");
  const logits = required(outputs, "output", "logits");
  const shapes = names.flatMap(({ past, present }) => [
    required(inputs, "input", past),
    required(outputs, "output", present),
  ]);
  const ortType = shapes[0]?.type ?? "unknown";
  const dtype = DTYPES[ortType];
  if (dtype === undefined || shapes.some(({ type }) => type !== ortType)) {
    throw new UnsupportedModelError(
      "Model must keep K and V of all layers as float32, or of all as float16: received " +
        [...new Set(shapes.map(({ type = "no tensor" }) => type))].join(", "),
    );
  }
  const wrongShape = shapes.find(({ shape = [] }) => shape.length !== 4);
  if (wrongShape !== undefined) {
    throw new UnsupportedModelError(
      "K and V must be [batch, heads, tokens, elements]: received " +
        `[${wrongShape.shape?.join(", ")}] as ${wrongShape.name}`,
    );
  }
  const fixedLength = shapes.find(({ shape = [] }) => typeof shape[2] === "number");
  if (fixedLength !== undefined) {
    throw new UnsupportedModelError(
      "K and V must grow with the number of tokens: received a fixed number of " +
        `${fixedLength.shape?.[2]} tokens as ${fixedLength.name}`,
    );
  }
  const heads = countIn(config, "num_attention_heads");
  const hidden = countIn(config, "hidden_size");
  const elements = countIn(config, "head_dim") ?? (heads && hidden && hidden / heads);
  return {
    layers: layers.length,
    kvHeads: dimension(shapes, 1, "K and V heads", countIn(config, "num_key_value_heads") ?? heads),
    headDim: dimension(shapes, 3, "elements of a head", elements),
    vocabulary: dimension([logits], -1, "tokens of the vocabulary", countIn(config, "vocab_size")),
    dtype,
    ortType,
    kv,
    inputs: new Set(KNOWN_INPUTS.filter((name) => inputs.has(name))),
    slidingWindow: slidingWindowOf(config),
  };
}

function namesOf(layer: number, part: "key" | "value"): KvNames {
  return { past: `past_key_values.${layer}.${part}`, present: `present.${layer}.${part}` };
}

function byName(values: readonly OrtValueMetadata[]): Map<string, OrtValueMetadata> {
  return new Map(values.map((value) => [value.name, value]));
}

function required(
  values: ReadonlyMap<string, OrtValueMetadata>,
  what: "input" | "output",
  name: string,
): OrtValueMetadata {
  const value = values.get(name);
  if (value !== undefined) return value;
  throw new UnsupportedModelError(
    `Model must have an ${what} named ${name}: received ${[...values.keys()].join(", ")}`,
  );
}

/** The common size of a dimension of all shapes, or `configured` if the model leaves it open. */
function dimension(
  shapes: readonly OrtValueMetadata[],
  axis: number,
  what: string,
  configured: number | undefined,
): number {
  const found = new Set(shapes.map(({ shape = [] }) => shape.at(axis)));
  const fixed = [...found].filter((size) => typeof size === "number");
  if (fixed.length > 1) {
    throw new UnsupportedModelError(
      `Model must have the same number of ${what} in all layers: received ${fixed.join(", ")}`,
    );
  }
  const size = fixed[0] ?? configured;
  if (isCount(size)) return size;
  throw new UnsupportedModelError(
    `Model does not specify the number of ${what}: pass its config.json as config`,
  );
}
