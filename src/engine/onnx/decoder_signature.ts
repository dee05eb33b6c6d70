import type { KvDtype } from "../../keys/kv_layout.ts";
import type { OrtSession, OrtValueMetadata } from "./ort.ts";

/** A model that cannot be served from a cache of prefixes; the message says why. */
export class UnsupportedModelError extends Error {
  /** The name of the class. */
  override readonly name = "UnsupportedModelError";
}

/** A model's `config.json` (Hugging Face), parsed. */
export type ModelConfig = Readonly<Record<string, unknown>>;

/**
 * A positive integer of a model's config, or of its part for text.
 *
 * @returns `undefined` if the config does not have it.
 * @throws {UnsupportedModelError} If it is anything else.
 */
export function countIn(config: ModelConfig, name: string): number | undefined {
  const { "text_config": text } = config;
  const value = config[name] ?? (text as ModelConfig | null | undefined)?.[name] ?? undefined;
  if (value === undefined) return undefined;
  if (typeof value === "number" && Number.isSafeInteger(value) && value > 0) return value;
  throw new UnsupportedModelError(
    `${name} of config.json must be a positive integer: received ${typeof value}`,
  );
}

/** What a decoder session takes and gives. */
export interface DecoderSignature {
  /** Number of layers. */
  readonly layers: number;
  /** K (and V) heads of each. */
  readonly kvHeads: number;
  /** Elements of a head. */
  readonly headDim: number;
  /** Tokens that exist; their ids are smaller. */
  readonly vocabulary: number;
  /** Element type of K and V for the cache. */
  readonly dtype: KvDtype;
  /** Element type of K and V for the runtime. */
  readonly ortType: string;
  /** For each layer the names of its K and V, as inputs and as outputs. */
  readonly kv: readonly { readonly key: KvNames; readonly value: KvNames }[];
  /** Optional inputs that the model has. */
  readonly inputs: ReadonlySet<string>;
}

/** Names of one K or V tensor. */
export interface KvNames {
  /** The input. */
  readonly past: string;
  /** The output. */
  readonly present: string;
}

/** Inputs, beside K and V, that a decoder session knows how to feed. */
const KNOWN_INPUTS = ["input_ids", "attention_mask", "position_ids", "num_logits_to_keep"];
const DTYPES: Readonly<Record<string, KvDtype>> = { float32: "f32", float16: "f16" };

/**
 * Reads what a session takes and gives, by the names that Optimum and transformers.js export:
 * `past_key_values.N.key`, `past_key_values.N.value`, `present.N.key`, `present.N.value`.
 *
 * @throws {UnsupportedModelError} If a prefix of its K and V does not say all about its state, or
 * that is not known to be so.
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
      "Model must have no state beside K and V, and no input beside " +
        `${KNOWN_INPUTS.join(", ")}: received ${unknown.join(", ")}`,
    );
  }
  for (const name of ["input_ids", ...names.map(({ past }) => past)]) {
    required(inputs, "input", name);
  }
  for (const name of ["logits", ...names.map(({ present }) => present)]) {
    required(outputs, "output", name);
  }
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
  const unlike = shapes.find(({ shape = [] }) => shape.length !== 4);
  if (unlike !== undefined) {
    throw new UnsupportedModelError(
      "K and V must be [batch, heads, tokens, elements]: received " +
        `[${unlike.shape?.join(", ")}] as ${unlike.name}`,
    );
  }
  const heads = countIn(config, "num_attention_heads");
  const hidden = countIn(config, "hidden_size");
  return {
    layers: layers.length,
    kvHeads: dimension(shapes, 1, "K and V heads", countIn(config, "num_key_value_heads") ?? heads),
    headDim: dimension(
      shapes,
      3,
      "elements of a head",
      countIn(config, "head_dim") ?? (heads && hidden && hidden / heads),
    ),
    vocabulary: dimension(
      [required(outputs, "output", "logits")],
      -1,
      "tokens of the vocabulary",
      countIn(config, "vocab_size"),
    ),
    dtype,
    ortType,
    kv,
    inputs: new Set(KNOWN_INPUTS.filter((name) => inputs.has(name))),
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

/** A dimension that all K and V have; where the model leaves it open, what its config says. */
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
      `Model must have one number of ${what} in all layers: received ${fixed.join(", ")}`,
    );
  }
  const size = fixed[0] ?? configured;
  if (size !== undefined && Number.isSafeInteger(size) && size > 0) return size;
  throw new UnsupportedModelError(
    `Model leaves the number of ${what} open: pass its config.json as config`,
  );
}
