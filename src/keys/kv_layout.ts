import { sha256 } from "../base/digest.ts";
import { checkNumber, checkOptionKeys, numberInWords } from "../base/options.ts";

/** Default number of tokens per chunk. */
export const DEFAULT_CHUNK_TOKENS = 256;

/** Data type of the elements of K and V. */
export type KvDtype = "f32" | "f16" | "bf16" | "f8e4m3" | "f8e5m2" | "i8";

const DTYPE_BYTES: Readonly<Record<KvDtype, number>> = {
  f32: 4,
  f16: 2,
  bf16: 2,
  f8e4m3: 1,
  f8e5m2: 1,
  i8: 1,
};

/**
 * Order of the dimensions of a K or V tensor, in the notation of attention kernels: tokens (N),
 * heads (H), elements of a head (D).
 */
export type KvOrder = "NHD" | "HND";

/** Size and format of an object's bytes. */
export interface ObjectLayout {
  /** Payload bytes of one object: a positive multiple of 4. */
  readonly byteLength: number;
  /** 8 bytes that identify the format of the payload. */
  readonly fingerprint: Uint8Array;
}

/** Shape of a model's KV; see {@linkcode kvLayout}. */
export interface KvShape {
  /** Number of layers. */
  readonly layers: number;
  /** Number of K (and V) heads per layer. */
  readonly kvHeads: number;
  /** Elements of K (or V) per head and token. */
  readonly headDim: number;
  /** Data type of an element. */
  readonly dtype: KvDtype;
  /** Tokens per chunk. @default {256} */
  readonly chunkTokens?: number;
  /** Order of the dimensions of the engine's tensors. @default {"NHD"} */
  readonly order?: KvOrder;
}

/**
 * The layout of one chunk's object: for each layer the K tensor, then the V tensor, each
 * `[chunkTokens, kvHeads, headDim]` (NHD) or `[kvHeads, chunkTokens, headDim]` (HND) without gaps.
 */
export interface KvLayout extends ObjectLayout, Required<KvShape> {
  /** Bytes of one token in one layer's K (or V) tensor. */
  readonly tokenBytes: number;
  /** Bytes of one chunk in one layer's K (or V) tensor: `chunkTokens * tokenBytes`. */
  readonly tensorBytes: number;
}

const SHAPE_KEYS = ["layers", "kvHeads", "headDim", "dtype", "chunkTokens", "order"];
/** Keys of a layout, which is accepted as a shape. */
const LAYOUT_KEYS = [...SHAPE_KEYS, "tokenBytes", "tensorBytes", "byteLength", "fingerprint"];

/**
 * Computes the layout of one chunk's object from the shape of a model's KV.
 *
 * @throws {TypeError} If a key is unknown, or a value has the wrong type.
 * @throws {RangeError} If a number is not a positive integer, the dtype or the order is unknown, or
 * one chunk of a tensor (NHD), or of one of its heads (HND), is not a multiple of 4 bytes, which
 * GPU copies require.
 */
export function kvLayout(shape: KvShape): KvLayout {
  checkOptionKeys("kvLayout()", shape, LAYOUT_KEYS);
  const { layers, kvHeads, headDim, dtype } = shape;
  const { chunkTokens = DEFAULT_CHUNK_TOKENS, order = "NHD" } = shape;
  for (const [name, value] of Object.entries({ layers, kvHeads, headDim, chunkTokens })) {
    checkNumber(name, value, { minimum: 1, multipleOf: 1 });
  }
  if (!Object.hasOwn(DTYPE_BYTES, dtype)) {
    const known = Object.keys(DTYPE_BYTES).join(", ");
    throw new RangeError(`dtype must be one of ${known}: received ${choiceInWords(dtype)}`);
  }
  if (order !== "NHD" && order !== "HND") {
    throw new RangeError(`order must be one of NHD, HND: received ${choiceInWords(order)}`);
  }
  const tokenBytes = kvHeads * headDim * DTYPE_BYTES[dtype];
  const tensorBytes = chunkTokens * tokenBytes;
  const [copied, bytes] = order === "NHD"
    ? ["chunkTokens * kvHeads * headDim", tensorBytes]
    : ["chunkTokens * headDim", tensorBytes / kvHeads];
  if (bytes % 4 !== 0) {
    throw new RangeError(`${copied} elements must fill a multiple of 4 bytes: received ${bytes}`);
  }
  const byteLength = layers * 2 * tensorBytes;
  if (!Number.isSafeInteger(byteLength)) {
    throw new RangeError(`Object must have at most 2^53 - 1 bytes: received ${byteLength}`);
  }
  const fields = [
    layers,
    kvHeads,
    headDim,
    dtype,
    chunkTokens,
    ...(order === "NHD" ? [] : [order]),
  ];
  const canonical = JSON.stringify(["kvtier layout 1", ...fields]);
  const fingerprint = sha256(new TextEncoder().encode(canonical)).slice(0, 8);
  const dimensions = { layers, kvHeads, headDim, dtype, chunkTokens, order };
  return { ...dimensions, tokenBytes, tensorBytes, byteLength, fingerprint };
}

function choiceInWords(value: unknown): string {
  return typeof value === "string" ? value : numberInWords(value);
}
