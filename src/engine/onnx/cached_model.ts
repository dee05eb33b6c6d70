import { DEFAULT_CHUNK_TOKENS, kvLayout } from "../../keys/kv_layout.ts";
import type { MemoryDevice } from "../../memory/memory_device.ts";
import { WebGpuDevice } from "../../memory/webgpu_device.ts";
import type { TieredCache } from "../../tiered_cache.ts";
import { PrefixCache } from "../prefix_cache.ts";
import { type DecoderSignature, type ModelConfig, readSignature } from "./decoder_signature.ts";
import { type KvMemory, kvMemoryFor } from "./kv_memory.ts";
import type { LoadedModel } from "./model_source.ts";
import { type Ort, type OrtSession, OrtTensorFactory } from "./ort.ts";
import { runInTurn } from "./run_in_turn.ts";

/** Options of a model whose prefixes are cached. */
export interface CachedModelOptions {
  /** Name under which its KV is listed. @default {the file name of the model, or "onnx"} */
  readonly name?: string;
  /** Tokens per chunk: computed in one step and stored as one object. @default {256} */
  readonly chunkTokens?: number;
  /**
   * Conditions for reusing KV. `runtime`: the same model bytes, version of the runtime, execution
   * provider and device. `model`: the same model bytes; KV then differs in the last bits between
   * devices.
   *
   * @default {"runtime"}
   */
  readonly identity?: "runtime" | "model";
  /** Deadline of a match; see `PrefixCacheOptions`. */
  readonly deadline?: { readonly baseMs?: number; readonly perTokenMs?: number };
  /** Whether only what is faster to load than to compute is loaded; see `PrefixCacheOptions`. */
  readonly loadOnlyIfFaster?: boolean;
}

/** A session of a model, with what identifies the KV that it computes. */
export interface ModelSession {
  /** The session. */
  readonly session: OrtSession;
  /** File name of the model. */
  readonly name: string;
  /** SHA-256 of the model, in hexadecimal. */
  readonly digest: string;
  /** Options of the session, which may change its KV. */
  readonly sessionOptions: object;
}

/** A model whose prefixes are cached. */
export interface CachedModel {
  /** The runtime. */
  readonly ort: Ort;
  /** Inputs and outputs of the model. */
  readonly signature: DecoderSignature;
  /** Creates its tensors. */
  readonly tensors: OrtTensorFactory;
  /** The memory of its K and V. */
  readonly memory: KvMemory;
  /** The cache of its prefixes. */
  readonly prefixes: PrefixCache;
  /** Clock of the cache, in milliseconds. */
  readonly now: () => number;
}

/** Options of a session that computes on the device of a cache and keeps its outputs there. */
export function sessionOptionsFor(device: MemoryDevice): object {
  if (!(device instanceof WebGpuDevice)) {
    return { executionProviders: ["wasm"], preferredOutputLocation: "cpu" };
  }
  return {
    executionProviders: [{ name: "webgpu", device: device.gpuDevice }],
    preferredOutputLocation: "gpu-buffer",
  };
}

/** Opens a session that computes on the device of a cache. */
export async function openSession(
  ort: Ort,
  device: MemoryDevice,
  { name, digest, bytes, externalData }: LoadedModel,
  sessionOptions: object,
): Promise<ModelSession> {
  const options = { ...sessionOptions, ...sessionOptionsFor(device), externalData };
  const session = await runInTurn(ort, () => ort.InferenceSession.create(bytes, options));
  return { session, name, digest, sessionOptions };
}

/**
 * Creates the prefix cache of a model.
 *
 * @param isExact Whether its KV is kept separate from KV that was computed token by token.
 * @throws {UnsupportedModelError} If prefixes of the model cannot be cached, or the device lacks
 * what it needs.
 * @throws {RangeError} If an option is out of range, or a chunk does not fit into device memory.
 */
export function cacheModel(
  cache: TieredCache,
  ort: Ort,
  model: ModelSession,
  config: ModelConfig | undefined,
  options: CachedModelOptions,
  isExact = false,
): CachedModel {
  const signature = readSignature(model.session, config);
  const tensors = new OrtTensorFactory(ort);
  const memory = kvMemoryFor(cache.device, signature, tensors);
  const { layers, kvHeads, headDim, dtype } = signature;
  const { name = model.name, chunkTokens = DEFAULT_CHUNK_TOKENS, identity } = options;
  const { deadline, loadOnlyIfFaster } = options;
  const revision = revisionOf(model, identity, ort, memory);
  const prefixes = new PrefixCache(cache, {
    model: { name, revision: isExact ? `${revision}; exact` : revision },
    layout: kvLayout({ layers, kvHeads, headDim, dtype, chunkTokens, order: "HND" }),
    ...(deadline === undefined ? {} : { deadline }),
    ...(loadOnlyIfFaster === undefined ? {} : { loadOnlyIfFaster }),
  });
  return { ort, signature, tensors, memory, prefixes, now: () => cache.now() };
}

/**
 * The revision of a model's KV: the digest of its bytes and, unless `identity` is `model`, the
 * runtime, its execution provider and the device, and the optimization level of the graph if the
 * session's options name one: KV differs between them in the last bits.
 *
 * @throws {RangeError} If the identity is unknown.
 */
function revisionOf(
  { digest, sessionOptions }: ModelSession,
  identity: CachedModelOptions["identity"] = "runtime",
  { env: { versions } }: Ort,
  { provider, description }: KvMemory,
): string {
  if (identity === "model") return digest;
  if (identity !== "runtime") {
    throw new RangeError(`identity must be "runtime" or "model": received ${typeof identity}`);
  }
  const runtime = `onnxruntime-web ${versions.web ?? versions.common}`;
  const { graphOptimizationLevel: level } = sessionOptions as { graphOptimizationLevel?: string };
  const graph = level === undefined ? [] : [`graph optimization ${level}`];
  return [digest, provider, runtime, description, ...graph].join("; ");
}
