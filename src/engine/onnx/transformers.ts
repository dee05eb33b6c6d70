import type { TokenIds } from "../../keys/chunk_hash.ts";
import { turnEventLoop } from "../../base/event_loop.ts";
import type { TieredCache } from "../../tiered_cache.ts";
import type { PrefillReport } from "../prefill_rate.ts";
import type { PutResult } from "../prefix_cache.ts";
import type { MatchOptions, PromptOptions } from "../prefix_options.ts";
import {
  type CachedModel,
  type CachedModelOptions,
  cacheModel,
  type ModelSession,
  openSession,
} from "./cached_model.ts";
import { cutPastError, type ModelConfig, UnsupportedModelError } from "./decoder_signature.ts";
import { checkPast, pastOf, restorePast } from "./kv_memory.ts";
import { loadModel, type ModelSource } from "./model_source.ts";
import {
  type Ort,
  type OrtSession,
  type OrtTensor,
  OrtTensorFactory,
  type OrtTensors,
} from "./ort.ts";
import { runInTurn } from "./run_in_turn.ts";

/** The used parts of a transformers.js model. */
export interface TransformersModel {
  /** Its sessions, by name. */
  readonly sessions: Readonly<Record<string, unknown>>;
  /** Its configuration. */
  readonly config: object;
}

/** A transformers.js tensor. */
export interface TransformersTensor {
  /** The tensor of the runtime. */
  readonly "ort_tensor": unknown;
}

/** The used classes of transformers.js. */
export interface Transformers<Cache> {
  /** Class of past keys and values, which are keyed by the names of the model's inputs. */
  readonly DynamicCache: new (entries: never) => Cache;
  /** Class of tensors. */
  readonly Tensor: new (tensor: never) => TransformersTensor;
}

/** Options of {@linkcode TransformersRuntime.prefixesOf}. */
export type TransformersPrefixesOptions = CachedModelOptions;

/** Global symbol under which transformers.js finds a runtime when it is imported. */
const RUNTIME = Symbol.for("onnxruntime");

/**
 * Makes transformers.js compute on the device of a cache: its GPUDevice, or the CPU.
 *
 * transformers.js looks up its runtime when it is imported: call
 * {@linkcode TransformersRuntime.install} first, then import `@huggingface/transformers`
 * dynamically.
 */
export class TransformersRuntime {
  readonly #cache: TieredCache;
  readonly #ort: Ort;
  readonly #models = new WeakMap<object, ModelSession & { readonly session: SharedSession }>();

  private constructor(cache: TieredCache, ort: Ort) {
    this.#cache = cache;
    this.#ort = ort;
  }

  /**
   * Installs a runtime for transformers.js with sessions that share memory with a cache. Call it
   * once: transformers.js keeps the runtime that was installed when it was imported.
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
   * Creates the prefix cache of a model that was loaded after {@linkcode install}.
   *
   * @throws {UnsupportedModelError} If prefixes of the model cannot be cached, or it was not loaded
   * with this runtime.
   * @throws {RangeError} If the chunk size is out of range, or a chunk does not fit into device
   * memory.
   */
  prefixesOf<Cache extends object>(
    model: TransformersModel,
    transformers: Transformers<Cache>,
    options: TransformersPrefixesOptions = {},
  ): TransformersPrefixes<Cache> {
    const [session, ...others] = Object.values(model.sessions)
      .map((session) => session as OrtSession & object);
    if (session === undefined || others.length > 0) {
      throw new UnsupportedModelError(
        `Model must be a decoder with 1 session: received ${
          Object.keys(model.sessions).join(", ")
        }`,
      );
    }
    const loaded = this.#models.get(session);
    if (loaded === undefined) {
      throw new UnsupportedModelError(
        "Model must be loaded by this runtime, on the device of its cache: call " +
          "TransformersRuntime.install() once, before @huggingface/transformers is imported, and " +
          "load the model afterwards",
      );
    }
    const config = model.config as ModelConfig;
    const cached = cacheModel(this.#cache, this.#ort, loaded, config, options);
    loaded.session.onPrefill = (report) => cached.prefixes.reportPrefill(report);
    return new TransformersPrefixes(cached, loaded.session, transformers);
  }

  async #createSession(source: ModelSource, options: object): Promise<OrtSession> {
    const { externalData = [] } = options as { externalData?: readonly ExternalFile[] };
    const external = Object.fromEntries(externalData.map(({ path, data }) => [path, data]));
    const { device } = this.#cache;
    const model = await openSession(this.#ort, device, await loadModel(source, external), options);
    const session = new SharedSession(this.#ort, model.session, this.#cache);
    this.#models.set(session, { ...model, session });
    return session;
  }
}

interface ExternalFile {
  readonly path: string;
  readonly data: ModelSource;
}

/** A session that keeps K and V on the device and returns other outputs in host memory. */
class SharedSession implements OrtSession {
  readonly inputMetadata: OrtSession["inputMetadata"];
  readonly outputMetadata: OrtSession["outputMetadata"];
  readonly inputNames: readonly string[];
  readonly outputNames: readonly string[];
  readonly #ort: Ort;
  readonly #session: OrtSession;
  readonly #tensors: OrtTensorFactory;
  readonly #isOnGpu: boolean;
  readonly #now: () => number;
  /** Numbers of tokens computed and returned by the first run whose outputs lack some. */
  cut: { readonly tokens: number; readonly received: number | undefined } | undefined;
  /** Called with the time of each run of several tokens but the first, which also compiles. */
  onPrefill: (report: PrefillReport) => void = () => {};
  #isWarm = false;

  constructor(ort: Ort, session: OrtSession, cache: TieredCache) {
    this.#ort = ort;
    this.#session = session;
    this.#tensors = new OrtTensorFactory(ort);
    this.#now = () => cache.now();
    this.#isOnGpu = cache.device.type === "webgpu";
    this.inputMetadata = session.inputMetadata;
    this.outputMetadata = session.outputMetadata;
    this.inputNames = session.inputMetadata.map(({ name }) => name);
    this.outputNames = session.outputMetadata.map(({ name }) => name);
  }

  run(feeds: OrtTensors, fetches = this.outputNames): Promise<OrtTensors> {
    return runInTurn(this.#ort, async () => {
      const startedAt = this.#now();
      const outputs = await this.#session.run(feeds, fetches);
      if (!this.#isOnGpu) await turnEventLoop();
      this.#findCut(feeds, outputs);
      const named = Object.entries(outputs).map(async ([name, tensor]) => {
        if (!this.#isOnGpu || name.startsWith("present.")) return [name, tensor] as const;
        const data = await tensor.getData(true) as ArrayBufferView;
        return [name, this.#tensors.ofHost(tensor.type, data, tensor.dims)] as const;
      });
      const read = await Promise.all(named);
      this.#measure(feeds, this.#now() - startedAt);
      return Object.fromEntries(read);
    });
  }

  release(): Promise<void> {
    return this.#session.release();
  }

  #measure(feeds: OrtTensors, ms: number): void {
    const [sequences, tokens = 0] = feeds["input_ids"]?.dims ?? [];
    const position = feeds["past_key_values.0.key"]?.dims[2] ?? 0;
    if (this.#isWarm && sequences === 1 && tokens > 1) this.onPrefill({ tokens, ms, position });
    this.#isWarm = true;
  }

  #findCut(feeds: OrtTensors, outputs: OrtTensors): void {
    const { "input_ids": ids } = feeds;
    for (const [name, { dims }] of Object.entries(outputs)) {
      const past = feeds[name.replace(/^present\./, "past_key_values.")];
      if (past === undefined || ids === undefined) continue;
      const tokens = (past.dims[2] ?? 0) + (ids.dims[1] ?? 0);
      if (dims[2] !== tokens) this.cut ??= { tokens, received: dims[2] };
    }
  }
}

/** The prefix cache of a transformers.js model. */
export class TransformersPrefixes<Cache extends object> {
  readonly #model: CachedModel;
  readonly #session: SharedSession;
  readonly #transformers: Transformers<Cache>;

  /** @ignore Created by {@linkcode TransformersRuntime.prefixesOf}. */
  constructor(model: CachedModel, session: SharedSession, transformers: Transformers<Cache>) {
    this.#model = model;
    this.#session = session;
    this.#transformers = transformers;
  }

  /**
   * Loads past keys and values of the longest cached prefix, to be passed to `generate` as
   * `past_key_values` together with the whole prompt. They leave at least one token to compute, and
   * are empty if nothing is cached.
   *
   * @param tokens The whole prompt.
   * @throws {TypeError | RangeError} If the salt or a token id is not valid.
   * @throws The reason of `options.signal` if that aborts.
   */
  async load(tokens: TokenIds, options: MatchOptions = {}): Promise<Cache> {
    const { prefixes, memory, signature } = this.#model;
    using hit = await prefixes.match(tokens, options);
    const past = await restorePast(hit, memory);
    const { DynamicCache, Tensor } = this.#transformers;
    const entries = (past?.layers ?? []).flatMap(({ key, value }, layer) => {
      const names = signature.kv[layer];
      return names === undefined ? [] : [
        [names.key.past, new Tensor(key as never)],
        [names.value.past, new Tensor(value as never)],
      ];
    });
    return new DynamicCache(Object.fromEntries(entries) as never);
  }

  /**
   * Stores the complete chunks of a sequence in the cache. The past can be disposed or used further
   * as soon as this returns.
   *
   * @param tokens Tokens of the sequence: the prompt and the generated ones.
   * @param past The `past_key_values` returned by `generate`.
   * @throws {TypeError | RangeError} If the salt or a token id is not valid, or the past does not
   * belong to this model.
   * @throws {UnsupportedModelError} If the model has not returned K and V of all tokens.
   */
  save(tokens: TokenIds, past: Cache, options: PromptOptions = {}): PutResult {
    const { prefixes, memory, signature } = this.#model;
    const { cut } = this.#session;
    if (cut !== undefined) throw cutPastError(signature, cut.tokens, cut.received);
    const entries = past as Readonly<Record<string, TransformersTensor | undefined>>;
    const tensorOf = (name: string): OrtTensor => {
      const tensor = entries[name]?.ort_tensor as OrtTensor | undefined;
      if (tensor !== undefined) return tensor;
      throw new TypeError(`past must have a tensor ${name}: received none`);
    };
    const computed = tensorOf("past_key_values.0.key").dims[2] ?? 0;
    const computedPast = pastOf(signature, computed, (names) => tensorOf(names.past));
    checkPast(computedPast, signature);
    const computedTokens = Math.min(computed, tokens.length);
    return prefixes.put(tokens, memory.kvOf(computedPast), { ...options, computedTokens });
  }
}
