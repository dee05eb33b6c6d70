import type { TokenIds } from "../../keys/chunk_hash.ts";
import { DeviceLostError, type MemoryDevice } from "../../memory/memory_device.ts";
import type { TieredCache } from "../../tiered_cache.ts";
import type { PutResult } from "../prefix_cache.ts";
import type { PromptOptions } from "../prefix_options.ts";
import {
  type CachedModel,
  type CachedModelOptions,
  cacheModel,
  openSession,
  sessionOptionsFor,
} from "./cached_model.ts";
import { countIn, type ModelConfig, UnsupportedModelError } from "./decoder_signature.ts";
import { computeStep, type DecoderStep } from "./decoder_step.ts";
import { disposePast, type Past, restorePast } from "./kv_memory.ts";
import { loadModel, type ModelSource } from "./model_source.ts";
import type { Ort, OrtSession } from "./ort.ts";
import { PrefillTimer } from "./prefill_timer.ts";

/** Options of an {@linkcode OnnxDecoder}. */
export interface OnnxDecoderOptions extends CachedModelOptions {
  /**
   * The runtime: the module `onnxruntime-web/webgpu`, version 1.30 or later; for a cache in host
   * memory, `onnxruntime-web` suffices.
   */
  readonly ort: Ort;
  /** The model: its bytes, a path, or a URL. */
  readonly model: ModelSource;
  /** External weight files of the model, by the names used in it. */
  readonly externalData?: Readonly<Record<string, ModelSource>>;
  /** The parsed `config.json` of the model. */
  readonly config?: ModelConfig;
  /** Maximum number of tokens of a sequence. @default {`max_position_embeddings` of `config`} */
  readonly contextTokens?: number;
  /**
   * Whether logits must be bit-equal to those of a decoder without a cache. Then
   * {@linkcode OnnxDecoder.save} omits chunks that were decoded token by token.
   *
   * @default {false}
   */
  readonly exact?: boolean;
  /** Additional options of the runtime's session, except its device and where its outputs are. */
  readonly sessionOptions?: object;
}

/** Options of {@linkcode OnnxDecoder.prefill}. */
export interface PrefillOptions extends PromptOptions {
  /**
   * Aborts the call between two chunks; it rejects with the signal's reason. Computed chunks stay
   * cached.
   */
  readonly signal?: AbortSignal;
}

/** Result of {@linkcode OnnxDecoder.prefill}. */
export interface PrefillResult {
  /** Logits of the next token, one per token of the vocabulary. */
  readonly logits: Float32Array;
  /** Tokens whose KV came from the cache. */
  readonly reusedTokens: number;
  /** Number of these tokens that were in device memory. */
  readonly l1Tokens: number;
  /** Tokens whose KV was computed. */
  readonly computedTokens: number;
  /** What the cache had of the prompt, and why not more, in one sentence. */
  readonly explanation: string;
}

/** The current sequence. */
interface Sequence {
  readonly tokens: number[];
  readonly prompt: PromptOptions;
  /** Tokens whose KV is bit-equal to that of a decoder without a cache. */
  readonly exactTokens: number;
  past: Past;
}

/** `ready` accepts calls, `running` has a call in progress, `closed` accepts none. */
type DecoderState = "ready" | "running" | "closed";

/**
 * A decoder-only model on onnxruntime-web that starts the prefill after the cached prefix. A prompt
 * is always computed in steps of one chunk, so its logits are bit-equal to those of the same
 * decoder with an empty cache.
 *
 * A decoder has one sequence and runs one call at a time. Several decoders of one runtime take
 * turns.
 */
export class OnnxDecoder implements AsyncDisposable {
  /** Maximum number of tokens of a sequence. */
  readonly contextTokens: number;
  /** Tokens computed in one step. */
  readonly chunkTokens: number;
  /** The execution provider. */
  readonly provider: "webgpu" | "wasm";
  readonly #cache: TieredCache;
  /** Device of the session. The cache may be attached to another device later. */
  readonly #device: MemoryDevice;
  readonly #session: OrtSession;
  readonly #model: CachedModel;
  readonly #isExact: boolean;
  readonly #timer: PrefillTimer;
  #state: DecoderState = "ready";
  #idle: Promise<void> = Promise.resolve();
  #sequence: Sequence | undefined;

  private constructor(
    cache: TieredCache,
    session: OrtSession,
    model: CachedModel,
    contextTokens: number,
    isExact: boolean,
  ) {
    this.#cache = cache;
    this.#device = cache.device;
    this.#session = session;
    this.#model = model;
    this.#isExact = isExact;
    this.contextTokens = contextTokens;
    this.chunkTokens = model.prefixes.layout.chunkTokens;
    this.provider = model.memory.provider;
    const report = model.prefixes.reportPrefill.bind(model.prefixes);
    this.#timer = new PrefillTimer(report, this.provider === "wasm");
  }

  /**
   * Loads a model and opens a session on the GPUDevice of the cache, or on the CPU if the cache uses
   * host memory.
   *
   * Requires `--allow-read` permission for a model given by path, `--allow-net` for a URL.
   *
   * @throws {UnsupportedModelError} If prefixes of the model cannot be cached, its context length is
   * unknown, or the device lacks a required feature.
   * @throws {RangeError} If a number is out of range, or a chunk does not fit into device memory.
   * @throws {TypeError} If `sessionOptions` choose a device.
   * @throws {Error} If the model cannot be read, or the runtime rejects it.
   */
  static async open(cache: TieredCache, options: OnnxDecoderOptions): Promise<OnnxDecoder> {
    const { ort, externalData = {}, sessionOptions = {}, exact = false } = options;
    const { device } = cache;
    const loaded = await loadModel(options.model, externalData);
    checkSessionOptions(device, sessionOptions);
    const opened = await openSession(ort, device, loaded, sessionOptions);
    await using undo = new AsyncDisposableStack();
    undo.defer(() => opened.session.release());
    const model = cacheModel(cache, ort, opened, options.config, options, exact);
    const decoder = new OnnxDecoder(cache, opened.session, model, contextTokensOf(options), exact);
    undo.move();
    return decoder;
  }

  /**
   * Starts a sequence: restores the KV of its longest cached prefix, computes the rest chunk by
   * chunk, and stores each finished chunk in the cache. Discards the previous sequence.
   *
   * @param tokens The whole prompt.
   * @throws {RangeError} If the prompt is empty or longer than the context.
   * @throws {TypeError | RangeError} If the salt or a token id is not valid.
   * @throws The reason of `options.signal` if that aborts.
   * @throws {UnsupportedModelError} If the model does not return K and V of all tokens.
   * @throws {DeviceLostError} If the device was lost after the decoder was opened.
   * @throws {Error} If another call is in progress, the decoder is closed, or the runtime fails.
   */
  async prefill(tokens: TokenIds, options: PrefillOptions = {}): Promise<PrefillResult> {
    using _running = this.#enter();
    const ids = Array.from(tokens, Number);
    if (ids.length === 0) throw new RangeError("Prompt must have at least 1 token: received none");
    this.#checkLength(ids.length);
    this.#checkTokens(ids);
    const { signal, ...prompt } = options;
    signal?.throwIfAborted();
    this.#drop();
    // Results of a step depend on its number of tokens in the last bits, so the last chunk is either
    // computed completely or not at all.
    const lastChunkStart = ids.length - 1 - (ids.length - 1) % this.chunkTokens;
    const { past: restored, l1Tokens, explanation } = await this.#restore(
      ids.slice(0, lastChunkStart + 1),
      options,
    );
    let past = restored;
    const reusedTokens = past.tokens;
    this.#timer.start(reusedTokens);
    try {
      for (;;) {
        signal?.throwIfAborted();
        const end = Math.min(past.tokens + this.chunkTokens, ids.length);
        const step = await this.#compute(ids.slice(past.tokens, end), past, end === ids.length);
        this.#timer.add(end - past.tokens, step.ms, step.logits !== undefined);
        disposePast(past);
        past = step.past;
        if (end % this.chunkTokens === 0) {
          this.#model.prefixes.put(ids.slice(0, end), this.#model.memory.kvOf(past), {
            ...prompt,
            computedTokens: end,
          });
        }
        if (step.logits === undefined) continue;
        this.#sequence = { tokens: ids, prompt, exactTokens: ids.length, past };
        const computedTokens = ids.length - reusedTokens;
        return { logits: step.logits, reusedTokens, l1Tokens, computedTokens, explanation };
      }
    } catch (error) {
      disposePast(past);
      throw error;
    }
  }

  /**
   * Appends a token to the sequence.
   *
   * @returns Logits of the next token.
   * @throws {RangeError} If the context is full, or the token id is not valid.
   * @throws {UnsupportedModelError} If the model does not return K and V of all tokens.
   * @throws {DeviceLostError} If the device was lost after the decoder was opened.
   * @throws {Error} If there is no sequence, another call is in progress, the decoder is closed, or
   * the runtime fails, which does not change the sequence.
   */
  async step(token: number): Promise<Float32Array> {
    using _running = this.#enter();
    const sequence = this.#sequence;
    if (sequence === undefined) throw new Error("There is no sequence: call prefill() first");
    this.#checkTokens([token]);
    this.#checkLength(sequence.tokens.length + 1);
    const { past, logits } = await this.#compute([token], sequence.past, true);
    disposePast(sequence.past);
    sequence.past = past;
    sequence.tokens.push(token);
    return logits as Float32Array;
  }

  /**
   * Stores the complete chunks that decoding has added to the sequence. Their KV was computed token
   * by token and differs in the last bits from that of a prefill; with `exact` they are omitted.
   *
   * @throws {DeviceLostError} If the device was lost after the decoder was opened.
   * @throws {Error} If there is no sequence, another call is in progress, or the decoder is closed.
   */
  save(): PutResult {
    using _running = this.#enter();
    if (this.#sequence === undefined) {
      throw new Error("There is no sequence: call prefill() first");
    }
    const { tokens, past, prompt, exactTokens } = this.#sequence;
    const computedTokens = this.#isExact ? exactTokens : tokens.length;
    return this.#model.prefixes.put(tokens, this.#model.memory.kvOf(past), {
      ...prompt,
      computedTokens,
    });
  }

  /** The tokens of the sequence. */
  get tokens(): readonly number[] {
    return this.#sequence?.tokens ?? [];
  }

  /** Waits for a call in progress, discards the sequence, and releases the session. */
  async [Symbol.asyncDispose](): Promise<void> {
    const wasClosed = this.#state === "closed";
    this.#state = "closed";
    await this.#idle;
    if (wasClosed) return;
    this.#drop();
    await this.#session.release();
  }

  #enter(): Disposable {
    if (this.#state === "closed") throw new Error("Decoder is closed: open another one");
    if (this.#state === "running") {
      throw new Error(
        "A call of this decoder is in progress: await it, or open a decoder for each conversation",
      );
    }
    if (this.#cache.device !== this.#device || this.#device.isLost) {
      throw new DeviceLostError("The device of this decoder was lost: open another decoder");
    }
    this.#state = "running";
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#idle = promise;
    return {
      [Symbol.dispose]: () => {
        if (this.#state === "running") this.#state = "ready";
        resolve();
      },
    };
  }

  #drop(): void {
    if (this.#sequence !== undefined) disposePast(this.#sequence.past);
    this.#sequence = undefined;
  }

  #checkLength(tokens: number): void {
    if (tokens <= this.contextTokens) return;
    throw new RangeError(
      `Sequence must have at most the ${this.contextTokens} tokens of the context: received ${tokens}`,
    );
  }

  /** Checks token ids, because a GPU may silently map an invalid id to another token. */
  #checkTokens(tokens: readonly number[]): void {
    const { vocabulary } = this.#model.signature;
    const wrong = tokens.find((id) => !(Number.isSafeInteger(id) && id >= 0 && id < vocabulary));
    if (wrong === undefined) return;
    throw new RangeError(
      `Token ids must be integers from 0 to ${vocabulary - 1}: received ${wrong}`,
    );
  }

  /** Restores the cached KV of a prompt; an empty past if there is none or the device rejects it. */
  async #restore(
    tokens: readonly number[],
    { signal, ...prompt }: PrefillOptions,
  ): Promise<{ past: Past; l1Tokens: number; explanation: string }> {
    const options = signal === undefined ? prompt : { ...prompt, signal };
    using hit = await this.#model.prefixes.match(tokens, options);
    const past = await restorePast(hit, this.#model.memory);
    const explanation = hit.explain();
    if (past === undefined) return { past: NO_PAST, l1Tokens: 0, explanation };
    return { past, l1Tokens: hit.l1Tokens, explanation };
  }

  #compute(tokens: readonly number[], past: Past, wantsLogits: boolean): Promise<DecoderStep> {
    return computeStep(this.#session, this.#model, tokens, past, wantsLogits);
  }
}

function checkSessionOptions(device: MemoryDevice, sessionOptions: object): void {
  const shared = sessionOptionsFor(device);
  const chosen = Object.keys(sessionOptions).filter((name) => name in shared);
  if (chosen.length === 0) return;
  throw new TypeError(
    `sessionOptions must not have ${chosen.join(" or ")}: the session computes on the device of ` +
      "the cache, which TieredCache.open() takes as device",
  );
}

function contextTokensOf({ contextTokens, config = {} }: OnnxDecoderOptions): number {
  const tokens = contextTokens ?? countIn(config, "max_position_embeddings");
  if (tokens === undefined) {
    throw new UnsupportedModelError(
      "The context length of the model must be known: pass its config.json as config, or contextTokens",
    );
  }
  if (Number.isSafeInteger(tokens) && tokens > 0) return tokens;
  throw new RangeError(`contextTokens must be a positive integer: received ${tokens}`);
}

const NO_PAST: Past = { tokens: 0, layers: [] };
