import type { TokenIds } from "../../keys/chunk_hash.ts";
import { kvLayout } from "../../keys/kv_layout.ts";
import type { MemoryDevice } from "../../memory/memory_device.ts";
import type { TieredCache } from "../../tiered_cache.ts";
import { PrefixCache, type PutResult } from "../prefix_cache.ts";
import type { MatchOptions, PromptOptions } from "../prefix_options.ts";
import {
  type DecoderSignature,
  type ModelConfig,
  readSignature,
  UnsupportedModelError,
} from "./decoder_signature.ts";
import {
  type KvMemory,
  kvMemoryFor,
  type LayerTensors,
  restorePast,
  sessionOptionsFor,
} from "./kv_memory.ts";
import { loadModel, type ModelSource } from "./model_source.ts";
import {
  type Ort,
  type OrtSession,
  type OrtTensor,
  OrtTensorFactory,
  type OrtTensors,
} from "./ort.ts";
import { revisionOf } from "./revision.ts";
import { runInTurn, turnEventLoop } from "./run_in_turn.ts";

/** A model of transformers.js, as far as it is used here. */
export interface TransformersModel {
  /** Its sessions, by name. */
  readonly sessions: Readonly<Record<string, unknown>>;
  /** Its configuration. */
  readonly config: object;
}

/** A tensor of transformers.js. */
export interface TransformersTensor {
  /** The tensor of the runtime. */
  readonly "ort_tensor": unknown;
}

/** The classes of transformers.js that are used here. */
export interface Transformers<Cache> {
  /** Past keys and values, by the names of the model's inputs. */
  readonly DynamicCache: new (entries: never) => Cache;
  /** Tensors. */
  readonly Tensor: new (tensor: never) => TransformersTensor;
}

/** How {@linkcode TransformersRuntime.prefixesOf} caches. */
export interface TransformersPrefixesOptions {
  /** Name under which the KV of the model is listed. @default {the file name of the model} */
  readonly name?: string;
  /** Tokens in a chunk. @default {256} */
  readonly chunkTokens?: number;
  /** As in `OnnxDecoderOptions`. @default {"runtime"} */
  readonly identity?: "runtime" | "model";
  /** Time that a match may take; see `PrefixCacheOptions`. */
  readonly deadline?: { readonly baseMs?: number; readonly perTokenMs?: number };
}

/** Where transformers.js looks for a runtime when it is imported. */
const RUNTIME = Symbol.for("onnxruntime");

/**
 * Has transformers.js compute where the cache keeps L1: on its GPUDevice, or on the CPU.
 *
 * It takes the runtime that it finds when it is imported: call {@linkcode TransformersRuntime.install}
 * first, and import `@huggingface/transformers` dynamically, afterwards.
 */
export class TransformersRuntime {
  readonly #cache: TieredCache;
  readonly #ort: Ort;
  readonly #models = new WeakMap<object, { readonly name: string; readonly digest: string }>();

  private constructor(cache: TieredCache, ort: Ort) {
    this.#cache = cache;
    this.#ort = ort;
  }

  /**
   * Gives transformers.js a runtime whose sessions share memory with a cache.
   *
   * @param ort The module `onnxruntime-web/webgpu`.
   */
  static install(cache: TieredCache, ort: Ort): TransformersRuntime {
    const runtime = new TransformersRuntime(cache, ort);
    const create = (model: ModelSource, options: object = {}): Promise<OrtSession> =>
      runtime.#createSession(model, options);
    Object.assign(globalThis, { [RUNTIME]: { ...ort, InferenceSession: { create } } });
    return runtime;
  }

  /**
   * The prefixes of a model that was loaded after {@linkcode install}.
   *
   * @throws {UnsupportedModelError} If its KV cannot be cached by prefixes, or it was not loaded by
   * this runtime.
   * @throws {RangeError} If the chunk size is out of range, or a chunk does not fit into device
   * memory.
   */
  prefixesOf<Cache extends object>(
    model: TransformersModel,
    transformers: Transformers<Cache>,
    options: TransformersPrefixesOptions = {},
  ): TransformersPrefixes<Cache> {
    const sessions = Object.values(model.sessions).map((session) => session as OrtSession & object);
    const session = sessions.find((session) => this.#models.has(session));
    const loaded = session && this.#models.get(session);
    if (session === undefined || loaded === undefined || sessions.length !== 1) {
      throw new UnsupportedModelError(
        "Model must be a decoder with one session, loaded after TransformersRuntime.install(): " +
          `received ${sessions.length} sessions`,
      );
    }
    const signature = readSignature(session, model.config as ModelConfig);
    const tensors = new OrtTensorFactory(this.#ort);
    const memory = kvMemoryFor(this.#cache.device, signature, tensors);
    const { layers, kvHeads, headDim, dtype } = signature;
    const { name = loaded.name, chunkTokens, identity, deadline } = options;
    const prefixes = new PrefixCache(this.#cache, {
      model: { name, revision: revisionOf(loaded.digest, identity, this.#ort, memory) },
      layout: kvLayout({
        layers,
        kvHeads,
        headDim,
        dtype,
        order: "HND",
        ...(chunkTokens === undefined ? {} : { chunkTokens }),
      }),
      ...(deadline === undefined ? {} : { deadline }),
    });
    return new TransformersPrefixes(prefixes, signature, memory, transformers);
  }

  async #createSession(source: ModelSource, options: object): Promise<OrtSession> {
    const { externalData = [] } = options as { externalData?: readonly ExternalFile[] };
    const external = Object.fromEntries(externalData.map(({ path, data }) => [path, data]));
    const model = await loadModel(source, external);
    const session = await runInTurn(
      this.#ort,
      () =>
        this.#ort.InferenceSession.create(model.bytes, {
          ...options,
          ...sessionOptionsFor(this.#cache.device),
          externalData: model.externalData,
        }),
    );
    const shared = new SharedSession(this.#ort, session, this.#cache.device);
    this.#models.set(shared, model);
    return shared;
  }
}

interface ExternalFile {
  readonly path: string;
  readonly data: ModelSource;
}

/** A session whose K and V stay on the device, and whose other outputs come to the host. */
class SharedSession implements OrtSession {
  readonly inputMetadata: OrtSession["inputMetadata"];
  readonly outputMetadata: OrtSession["outputMetadata"];
  readonly inputNames: readonly string[];
  readonly outputNames: readonly string[];
  readonly #ort: Ort;
  readonly #session: OrtSession;
  readonly #tensors: OrtTensorFactory;
  readonly #isOnGpu: boolean;

  constructor(ort: Ort, session: OrtSession, device: MemoryDevice) {
    this.#ort = ort;
    this.#session = session;
    this.#tensors = new OrtTensorFactory(ort);
    this.#isOnGpu = device.type === "webgpu";
    this.inputMetadata = session.inputMetadata;
    this.outputMetadata = session.outputMetadata;
    this.inputNames = session.inputMetadata.map(({ name }) => name);
    this.outputNames = session.outputMetadata.map(({ name }) => name);
  }

  run(feeds: OrtTensors, fetches = this.outputNames): Promise<OrtTensors> {
    return runInTurn(this.#ort, async () => {
      const outputs = await this.#session.run(feeds, fetches);
      if (!this.#isOnGpu) await turnEventLoop();
      const named = Object.entries(outputs).map(async ([name, tensor]) => {
        if (!this.#isOnGpu || name.startsWith("present.")) return [name, tensor] as const;
        const data = await tensor.getData(true) as ArrayBufferView;
        return [name, this.#tensors.ofHost(tensor.type, data, tensor.dims)] as const;
      });
      return Object.fromEntries(await Promise.all(named));
    });
  }

  release(): Promise<void> {
    return this.#session.release();
  }
}

/** Cached prefixes of a model of transformers.js. */
export class TransformersPrefixes<Cache extends object> {
  readonly #prefixes: PrefixCache;
  readonly #signature: DecoderSignature;
  readonly #memory: KvMemory;
  readonly #transformers: Transformers<Cache>;

  /** @ignore Made by {@linkcode TransformersRuntime.prefixesOf}. */
  constructor(
    prefixes: PrefixCache,
    signature: DecoderSignature,
    memory: KvMemory,
    transformers: Transformers<Cache>,
  ) {
    this.#prefixes = prefixes;
    this.#signature = signature;
    this.#memory = memory;
    this.#transformers = transformers;
  }

  /**
   * Past keys and values of the longest cached prefix, to be passed to `generate` as
   * `past_key_values` with the whole prompt. At least one token is left to compute; of a prompt of
   * which nothing is cached it is empty.
   *
   * @param tokens The whole prompt.
   * @throws {TypeError | RangeError} If the salt or a token id is not valid.
   * @throws The reason of `options.signal` if that aborts.
   */
  async load(tokens: TokenIds, options: MatchOptions = {}): Promise<Cache> {
    using hit = await this.#prefixes.match(tokens, options);
    const past = await restorePast(hit, this.#memory);
    return this.#cacheOf(past?.layers ?? []);
  }

  /**
   * Hands the complete chunks of a sequence to the cache. The past can be disposed, or used on, as
   * soon as this returns.
   *
   * @param tokens The tokens of the sequence: the prompt, and what was generated.
   * @param past What `generate` has returned as `past_key_values`.
   * @throws {TypeError | RangeError} If the salt or a token id is not valid, or the past is none of
   * this model.
   */
  save(tokens: TokenIds, past: Cache, options: PromptOptions = {}): PutResult {
    const entries = past as Readonly<Record<string, TransformersTensor | undefined>>;
    const tensorOf = (name: string): OrtTensor => {
      const tensor = entries[name]?.ort_tensor as OrtTensor | undefined;
      if (tensor !== undefined) return tensor;
      throw new TypeError(`past must have a tensor ${name}: received none`);
    };
    const layers = this.#signature.kv.map(({ key, value }) => ({
      key: tensorOf(key.past),
      value: tensorOf(value.past),
    }));
    const computed = layers[0]?.key.dims[2] ?? 0;
    const kv = { layers: this.#memory.kvOf({ tokens: computed, layers }), blockTokens: computed };
    const computedTokens = Math.min(computed, tokens.length);
    return this.#prefixes.put(tokens, kv, { ...options, computedTokens });
  }

  #cacheOf(layers: readonly LayerTensors[]): Cache {
    const { DynamicCache, Tensor } = this.#transformers;
    const entries = layers.flatMap(({ key, value }, layer) => {
      const names = this.#signature.kv[layer];
      return names === undefined ? [] : [
        [names.key.past, new Tensor(key as never)],
        [names.value.past, new Tensor(value as never)],
      ];
    });
    return new DynamicCache(Object.fromEntries(entries) as never);
  }
}
