import {
  type Attribute,
  type Constant,
  type ElementType,
  encodeModel,
  type OnnxFile,
  type OnnxNode,
  type Value,
} from "./onnx_file.ts";

/** The operators used for the attention of a {@linkcode tinyDecoder}. */
export type Attention = "gqa" | "mha" | "plain";

/** Options of a {@linkcode tinyDecoder}. */
export interface TinyDecoderOptions {
  /** A fused operator, or plain operators. @default {"gqa"} */
  readonly attention?: Attention;
  /** @default {"f32"} */
  readonly dtype?: "f32" | "f16";
  /** @default {7} */
  readonly seed?: number;
  /** @default {2} */
  readonly layers?: number;
  /** @default {64} */
  readonly vocabulary?: number;
  /** Maximum number of positions of the rotary embedding. @default {512} */
  readonly positions?: number;
  /** Name of a separate file for the weights. */
  readonly externalName?: string;
}

/** Elements of a hidden state. */
const HIDDEN = 64;
/** Elements of the feed-forward layer. */
const INTER = 128;
/** Query heads. */
const HEADS = 4;
/** Elements of a head. */
export const HEAD_DIM = 16;

/** K and V heads, depending on the attention operator. */
export function kvHeadsOf(attention: Attention): number {
  return attention === "mha" ? HEADS : 2;
}

/**
 * Creates a decoder-only transformer with random weights, with the inputs and outputs of exported
 * models. It generates nonsense, reproducibly by seed.
 */
export function tinyDecoder(options: TinyDecoderOptions = {}): OnnxFile {
  const { attention = "gqa", dtype = "f32", layers = 2, vocabulary = 64 } = options;
  const graph = new GraphBuilder(dtype, options.seed ?? 7);
  const kvHeads = kvHeadsOf(attention);
  const inputs: Value[] = [
    { name: "input_ids", type: "i64", dims: ["batch_size", "sequence_length"] },
    { name: "attention_mask", type: "i64", dims: ["batch_size", "total_sequence_length"] },
    { name: "position_ids", type: "i64", dims: ["batch_size", "sequence_length"] },
  ];
  const outputs: Value[] = [{
    name: "logits",
    type: dtype,
    dims: ["batch_size", "sequence_length", vocabulary],
  }];
  const fused = { heads: HEADS, kvHeads, scale: HEAD_DIM ** -0.5 };
  graph.rotaryTables(options.positions ?? 512);
  graph.lengths();
  if (attention !== "gqa") graph.causalBias();
  let x = graph.add("Gather", [graph.weights([vocabulary, HIDDEN], 2), "input_ids"]);
  for (let layer = 0; layer < layers; layer++) {
    const past = ["key", "value"].map((part) => `past_key_values.${layer}.${part}`);
    const present = ["key", "value"].map((part) => `present.${layer}.${part}`);
    for (const name of past) {
      inputs.push({
        name,
        type: dtype,
        dims: ["batch_size", kvHeads, "past_sequence_length", HEAD_DIM],
      });
    }
    for (const name of present) {
      outputs.push({
        name,
        type: dtype,
        dims: ["batch_size", kvHeads, "total_sequence_length", HEAD_DIM],
      });
    }
    const normal = graph.normalize(x);
    const q = graph.project(normal, [HIDDEN, HEADS * HEAD_DIM]);
    const k = graph.project(normal, [HIDDEN, kvHeads * HEAD_DIM]);
    const v = graph.project(normal, [HIDDEN, kvHeads * HEAD_DIM]);
    const attended = attention === "gqa"
      ? graph.grouped([q, k, v, ...past], present, fused)
      : attention === "mha"
      ? graph.multiHead([q, k, v, ...past], present, fused)
      : graph.plain([q, k, v, ...past], present, fused);
    x = graph.add("Add", [x, graph.project(attended, [HEADS * HEAD_DIM, HIDDEN])]);
    const gate = graph.project(graph.normalize(x), [HIDDEN, INTER]);
    const up = graph.project(graph.normalize(x), [HIDDEN, INTER]);
    const gated = graph.add("Mul", [gate, graph.add("Sigmoid", [gate])]);
    x = graph.add("Add", [x, graph.project(graph.add("Mul", [gated, up]), [INTER, HIDDEN])]);
  }
  graph.project(graph.normalize(x), [HIDDEN, vocabulary], "logits");
  return encodeModel({ ...graph, inputs, outputs }, options.externalName);
}

/**
 * The `config.json` of a {@linkcode tinyDecoder} with the same options.
 *
 * @param tokens Ids of the tokens that begin and end a sequence.
 */
export function tinyConfig(
  options: TinyDecoderOptions,
  tokens: { readonly begin: number; readonly end: number },
): Readonly<Record<string, unknown>> {
  const { attention = "gqa", layers = 2, vocabulary = 64, positions = 512 } = options;
  return {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "num_hidden_layers": layers,
    "num_attention_heads": HEADS,
    "num_key_value_heads": kvHeadsOf(attention),
    "head_dim": HEAD_DIM,
    "hidden_size": HIDDEN,
    "vocab_size": vocabulary,
    "max_position_embeddings": positions,
    "bos_token_id": tokens.begin,
    "eos_token_id": tokens.end,
  };
}

interface Heads {
  readonly heads: number;
  readonly kvHeads: number;
  readonly scale: number;
}

class GraphBuilder {
  readonly nodes: OnnxNode[] = [];
  readonly constants: Constant[] = [];
  readonly #dtype: "f32" | "f16";
  readonly #random: () => number;
  #names = 0;

  constructor(dtype: "f32" | "f16", seed: number) {
    this.#dtype = dtype;
    this.#random = mulberry32(seed);
  }

  add(
    type: string,
    inputs: readonly string[],
    attributes: Readonly<Record<string, Attribute>> = {},
    output = `v${this.#names++}`,
  ): string {
    this.nodes.push({ type, inputs, outputs: [output], attributes });
    return output;
  }

  /** Adds a constant; floats are stored in the data type of the model. */
  constant(
    type: ElementType | "float",
    dims: readonly number[],
    values: readonly number[],
  ): string {
    const name = `c${this.#names++}`;
    const stored = type === "float" ? this.#dtype : type;
    this.constants.push({ name, type: stored, dims, bytes: bytesOf(stored, values) });
    return name;
  }

  weights([rows, columns]: readonly [number, number], scale: number): string {
    const spread = scale / Math.sqrt(rows);
    const values = Array.from({ length: rows * columns }, () => (2 * this.#random() - 1) * spread);
    return this.constant("float", [rows, columns], values);
  }

  /** Multiplies `x` by a matrix of weights. */
  project(x: string, [rows, columns]: readonly [number, number], output?: string): string {
    return this.add("MatMul", [x, this.weights([rows, columns], 2)], {}, output);
  }

  normalize(x: string): string {
    const scale = this.constant("float", [HIDDEN], Array(HIDDEN).fill(1));
    return this.add("SimplifiedLayerNormalization", [x, scale], {
      axis: -1,
      epsilon: { float: 1e-5 },
      "stash_type": 1,
    });
  }

  /** Cosines and sines of the rotary embedding, `[positions, HEAD_DIM / 2]`. */
  rotaryTables(positions: number): void {
    const angles = Array.from(
      { length: positions },
      (_, position) =>
        Array.from({ length: HEAD_DIM / 2 }, (_, i) => position / 10_000 ** (2 * i / HEAD_DIM)),
    );
    const dims = [positions, HEAD_DIM / 2];
    this.#cosines = this.constant("float", dims, angles.flat().map(Math.cos));
    this.#sines = this.constant("float", dims, angles.flat().map(Math.sin));
  }

  #cosines = "";
  #sines = "";
  #total = "";

  /** Lengths computed from the attention mask, as in exported models. */
  lengths(): void {
    const sum = this.add("ReduceSum", ["attention_mask", this.constant("i64", [1], [1])], {
      keepdims: 0,
    });
    const last = this.add("Sub", [sum, this.constant("i64", [1], [1])]);
    this.#lastPosition = this.add("Cast", [last], { to: 6 });
    const shape = this.add("Shape", ["attention_mask"]);
    this.#total = this.add("Gather", [shape, this.constant("i64", [], [1])], { axis: 0 });
  }

  #lastPosition = "";
  #bias = "";

  /** `[batch, 1, tokens, total]`: very negative where a column follows its row. */
  causalBias(): void {
    const zero = this.constant("i64", [], [0]);
    const columns = this.add("Range", [zero, this.#total, this.constant("i64", [], [1])]);
    const rows = this.add("Unsqueeze", ["position_ids", this.constant("i64", [1], [2])]);
    const isFuture = this.add("Greater", [columns, rows]);
    const values = [this.constant("float", [], [-1e4]), this.constant("float", [], [0])];
    const bias = this.add("Where", [isFuture, ...values]);
    this.#bias = this.add("Unsqueeze", [bias, this.constant("i64", [1], [1])]);
  }

  /** The fused operator including the rotary embedding. */
  grouped(inputs: readonly string[], present: readonly string[], heads: Heads): string {
    const total = this.add("Cast", [this.#total], { to: 6 });
    return this.#fused("GroupQueryAttention", present, {
      inputs: [...inputs, this.#lastPosition, total, this.#cosines, this.#sines],
      attributes: {
        "num_heads": heads.heads,
        "kv_num_heads": heads.kvHeads,
        "do_rotary": 1,
        scale: { float: heads.scale },
      },
    });
  }

  /** The older fused operator. */
  multiHead(
    [q = "", k = "", v = "", pastKey = "", pastValue = ""]: readonly string[],
    present: readonly string[],
    { heads, scale }: Heads,
  ): string {
    const joined = (x: string): string => {
      const swapped = this.add("Transpose", [this.#rotate(this.#split(x, heads))], {
        perm: [0, 2, 1, 3],
      });
      const shape = this.constant("i64", [3], [0, 0, heads * HEAD_DIM]);
      return this.add("Reshape", [swapped, shape]);
    };
    return this.#fused("MultiHeadAttention", present, {
      inputs: [joined(q), joined(k), v, "", "", this.#bias, pastKey, pastValue],
      attributes: { "num_heads": heads, scale: { float: scale } },
    });
  }

  /** Attention from plain operators. */
  plain(
    [q = "", k = "", v = "", pastKey = "", pastValue = ""]: readonly string[],
    [presentKey = "", presentValue = ""]: readonly string[],
    { heads, kvHeads, scale }: Heads,
  ): string {
    const keys = this.#rotate(this.#split(k, kvHeads));
    this.add("Concat", [pastKey, keys], { axis: 2 }, presentKey);
    this.add("Concat", [pastValue, this.#split(v, kvHeads)], { axis: 2 }, presentValue);
    const repeated = (x: string): string => {
      const wide = this.add("Unsqueeze", [x, this.constant("i64", [1], [2])]);
      const times = this.constant("i64", [5], [1, 1, heads / kvHeads, 1, 1]);
      const shape = this.constant("i64", [4], [0, heads, -1, HEAD_DIM]);
      return this.add("Reshape", [this.add("Expand", [wide, times]), shape]);
    };
    const turned = this.add("Transpose", [repeated(presentKey)], { perm: [0, 1, 3, 2] });
    const scores = this.add("MatMul", [this.#rotate(this.#split(q, heads)), turned]);
    const scaled = this.add("Mul", [scores, this.constant("float", [], [scale])]);
    const weights = this.add("Softmax", [this.add("Add", [scaled, this.#bias])], { axis: -1 });
    const attended = this.add("MatMul", [weights, repeated(presentValue)]);
    const swapped = this.add("Transpose", [attended], { perm: [0, 2, 1, 3] });
    const shape = this.constant("i64", [3], [0, 0, heads * HEAD_DIM]);
    return this.add("Reshape", [swapped, shape]);
  }

  #fused(
    type: string,
    present: readonly string[],
    { inputs, attributes }: {
      inputs: readonly string[];
      attributes: Readonly<Record<string, Attribute>>;
    },
  ): string {
    const out = `v${this.#names++}`;
    const outputs = [out, ...present];
    this.nodes.push({ type, inputs, outputs, attributes, domain: "com.microsoft" });
    return out;
  }

  /** `[batch, tokens, heads * dim]` as `[batch, heads, tokens, dim]`. */
  #split(x: string, heads: number): string {
    const shape = this.constant("i64", [4], [0, 0, heads, HEAD_DIM]);
    return this.add("Transpose", [this.add("Reshape", [x, shape])], { perm: [0, 2, 1, 3] });
  }

  #rotate(x: string): string {
    const axis = this.constant("i64", [1], [1]);
    const table = (values: string): string =>
      this.add("Unsqueeze", [this.add("Gather", [values, "position_ids"]), axis]);
    const [cosines, sines] = [table(this.#cosines), table(this.#sines)];
    const halves = [`v${this.#names++}`, `v${this.#names++}`] as const;
    this.nodes.push({
      type: "Split",
      inputs: [x],
      outputs: halves,
      attributes: { axis: 3, "num_outputs": 2 },
    });
    const times = (half: string, values: string): string => this.add("Mul", [half, values]);
    const low = this.add("Sub", [times(halves[0], cosines), times(halves[1], sines)]);
    const high = this.add("Add", [times(halves[1], cosines), times(halves[0], sines)]);
    return this.add("Concat", [low, high], { axis: 3 });
  }
}

function bytesOf(type: ElementType, values: readonly number[]): Uint8Array<ArrayBuffer> {
  switch (type) {
    case "f32":
      return new Uint8Array(Float32Array.from(values).buffer);
    case "f16":
      return new Uint8Array(Float16Array.from(values).buffer);
    case "i32":
      return new Uint8Array(Int32Array.from(values).buffer);
    case "i64":
      return new Uint8Array(BigInt64Array.from(values, BigInt).buffer);
  }
}

/** T. Ettinger's mulberry32 generator: numbers in [0, 1) from a seed. */
function mulberry32(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}
