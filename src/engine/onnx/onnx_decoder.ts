import type { TokenIds } from "../../keys/chunk_hash.ts";
import { DEFAULT_CHUNK_TOKENS, kvLayout } from "../../keys/kv_layout.ts";
import { DeviceLostError, type MemoryDevice } from "../../memory/memory_device.ts";
import { turnEventLoop } from "../../base/event_loop.ts";
import type { TieredCache } from "../../tiered_cache.ts";
import { PrefixCache, type PutResult } from "../prefix_cache.ts";
import type { PromptOptions } from "../prefix_options.ts";
import {
  countIn,
  cutPastError,
  type DecoderSignature,
  type ModelConfig,
  readSignature,
  slidingWindowOf,
  UnsupportedModelError,
} from "./decoder_signature.ts";
import {
  checkPast,
  disposePast,
  type KvMemory,
  kvMemoryFor,
  type Past,
  restorePast,
  sessionOptionsFor,
} from "./kv_memory.ts";
import { type LoadedModel, loadModel, type ModelSource } from "./model_source.ts";
import { type Ort, type OrtSession, type OrtTensor, OrtTensorFactory } from "./ort.ts";
import { revisionOf } from "./revision.ts";
import { runInTurn } from "./run_in_turn.ts";

/** Options of an {@linkcode OnnxDecoder}. */
export interface OnnxDecoderOptions {
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
  /**
   * Whether logits must be bit-equal to those of a decoder without a cache. Then
   * {@linkcode OnnxDecoder.save} omits chunks that were decoded token by token.
   *
   * @default {false}
   */
  readonly exact?: boolean;
  /** Deadline of a match; see `PrefixCacheOptions`. */
  readonly deadline?: { readonly baseMs?: number; readonly perTokenMs?: number };
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
  readonly #ort: Ort;
  readonly #session: OrtSession;
  readonly #signature: DecoderSignature;
  readonly #tensors: OrtTensorFactory;
  readonly #memory: KvMemory;
  readonly #prefixes: PrefixCache;
  readonly #isExact: boolean;
  readonly #slidingWindow: number | undefined;
  #state: DecoderState = "ready";
  #idle: Promise<void> = Promise.resolve();
  #sequence: Sequence | undefined;

  private constructor(parts: DecoderParts) {
    const { cache, options, session, signature, memory, prefixes, tensors, contextTokens } = parts;
    this.#cache = cache;
    this.#device = cache.device;
    this.#ort = options.ort;
    this.#session = session;
    this.#signature = signature;
    this.#memory = memory;
    this.#tensors = tensors;
    this.#prefixes = prefixes;
    this.#isExact = options.exact ?? false;
    this.#slidingWindow = slidingWindowOf(options.config ?? {});
    this.contextTokens = contextTokens;
    this.chunkTokens = prefixes.layout.chunkTokens;
    this.provider = memory.provider;
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
    const { ort, identity, chunkTokens = DEFAULT_CHUNK_TOKENS, exact = false } = options;
    const model = await loadModel(options.model, options.externalData ?? {});
    const tensors = new OrtTensorFactory(ort);
    const session = await createSession(cache, options, model);
    await using undo = new AsyncDisposableStack();
    undo.defer(() => session.release());
    const signature = readSignature(session, options.config);
    const memory = kvMemoryFor(cache.device, signature, tensors);
    const { layers, kvHeads, headDim, dtype } = signature;
    const revision = revisionOf(model.digest, identity, ort, memory, options.sessionOptions);
    const prefixes = new PrefixCache(cache, {
      model: {
        name: options.name ?? model.name,
        // Separate from KV that other decoders saved after decoding token by token.
        revision: exact ? `${revision}; exact` : revision,
      },
      layout: kvLayout({ layers, kvHeads, headDim, dtype, chunkTokens, order: "HND" }),
      ...(options.deadline === undefined ? {} : { deadline: options.deadline }),
    });
    const contextTokens = contextTokensOf(options);
    undo.move();
    return new OnnxDecoder({
      cache,
      options,
      session,
      signature,
      memory,
      prefixes,
      tensors,
      contextTokens,
    });
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
    const lastChunkStart = this.#chunkStart(ids.length - 1);
    const { past: restored, l1Tokens } = await this.#restore(
      ids.slice(0, lastChunkStart + 1),
      options,
    );
    let past = restored;
    const reusedTokens = past.tokens;
    try {
      for (;;) {
        signal?.throwIfAborted();
        const end = Math.min(past.tokens + this.chunkTokens, ids.length);
        const step = await this.#run(ids.slice(past.tokens, end), past, end === ids.length);
        disposePast(past);
        past = step.past;
        if (end % this.chunkTokens === 0) {
          this.#prefixes.put(ids.slice(0, end), this.#kvOf(past), {
            ...prompt,
            computedTokens: end,
          });
        }
        if (step.logits === undefined) continue;
        this.#sequence = { tokens: ids, prompt, exactTokens: ids.length, past };
        const computedTokens = ids.length - reusedTokens;
        return { logits: step.logits, reusedTokens, l1Tokens, computedTokens };
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
    const { past, logits } = await this.#run([token], sequence.past, true);
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
    return this.#prefixes.put(tokens, this.#kvOf(past), { ...prompt, computedTokens });
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
    const { vocabulary } = this.#signature;
    const wrong = tokens.find((id) => !(Number.isSafeInteger(id) && id >= 0 && id < vocabulary));
    if (wrong === undefined) return;
    throw new RangeError(
      `Token ids must be integers from 0 to ${vocabulary - 1}: received ${wrong}`,
    );
  }

  #chunkStart(token: number): number {
    return token - token % this.chunkTokens;
  }

  #kvOf(past: Past): { layers: ReturnType<KvMemory["kvOf"]>; blockTokens: number } {
    return { layers: this.#memory.kvOf(past), blockTokens: past.tokens };
  }

  /** Restores the cached KV of a prompt; an empty past if there is none or the device rejects it. */
  async #restore(
    tokens: readonly number[],
    { signal, ...prompt }: PrefillOptions,
  ): Promise<{ past: Past; l1Tokens: number }> {
    const options = signal === undefined ? prompt : { ...prompt, signal };
    using hit = await this.#prefixes.match(tokens, options);
    const past = await restorePast(hit, this.#memory);
    return past === undefined ? { past: NO_PAST, l1Tokens: 0 } : { past, l1Tokens: hit.l1Tokens };
  }

  /** Computes tokens that follow a past and, if wanted, the logits of the next token. */
  #run(
    tokens: readonly number[],
    past: Past,
    wantsLogits: boolean,
  ): Promise<{ past: Past; logits?: Float32Array }> {
    return runInTurn(this.#ort, async () => {
      const { kv } = this.#signature;
      const present = kv.flatMap(({ key, value }) => [key.present, value.present]);
      const fetches = wantsLogits ? [...present, "logits"] : present;
      const outputs = await this.#session.run(this.#feeds(tokens, past), fetches);
      if (this.provider === "wasm") await turnEventLoop();
      const total = past.tokens + tokens.length;
      const output = (name: string): OrtTensor => outputs[name] as OrtTensor;
      const layers = kv.map(({ key, value }) => ({
        key: output(key.present),
        value: output(value.present),
      }));
      const next: Past = { tokens: total, layers };
      try {
        this.#checkComplete(next);
        checkPast(next, this.#signature);
        if (!wantsLogits) return { past: next };
        const logits = output("logits");
        const row = (logits.dims.at(-2) ?? 1) - 1;
        return { past: next, logits: await this.#memory.readRow(logits, row) };
      } catch (error) {
        disposePast(next);
        throw error;
      } finally {
        outputs["logits"]?.dispose();
      }
    });
  }

  #feeds(tokens: readonly number[], past: Past): Record<string, OrtTensor> {
    const { kv, kvHeads, headDim, ortType, inputs } = this.#signature;
    const total = past.tokens + tokens.length;
    const dims = [1, tokens.length];
    const optional: Record<string, () => OrtTensor> = {
      "attention_mask": () => this.#tensors.integers(Array(total).fill(1), [1, total]),
      "position_ids": () => this.#tensors.integers(tokens.map((_, i) => past.tokens + i), dims),
      "num_logits_to_keep": () => this.#tensors.integers([1], []),
    };
    const feeds: Record<string, OrtTensor> = { "input_ids": this.#tensors.integers(tokens, dims) };
    for (const [name, create] of Object.entries(optional)) {
      if (inputs.has(name)) feeds[name] = create();
    }
    const nothing = (): OrtTensor =>
      this.#tensors.ofHost(
        ortType,
        ortType === "float16" ? new Float16Array(0) : new Float32Array(0),
        [1, kvHeads, 0, headDim],
      );
    for (const [layer, { key, value }] of kv.entries()) {
      const computed = past.layers[layer];
      feeds[key.past] = computed?.key ?? nothing();
      feeds[value.past] = computed?.value ?? nothing();
    }
    return feeds;
  }

  /** Checks that the model keeps K and V of all tokens; otherwise prefixes cannot be cached. */
  #checkComplete({ tokens, layers }: Past): void {
    const cut = layers.flatMap(({ key, value }) => [key, value])
      .find(({ dims }) => dims[2] !== tokens);
    if (cut !== undefined) throw cutPastError(tokens, cut.dims[2], this.#slidingWindow);
  }
}

/** The parts of an {@linkcode OnnxDecoder}. */
interface DecoderParts {
  readonly cache: TieredCache;
  readonly options: OnnxDecoderOptions;
  readonly session: OrtSession;
  readonly signature: DecoderSignature;
  readonly memory: KvMemory;
  readonly prefixes: PrefixCache;
  readonly tensors: OrtTensorFactory;
  readonly contextTokens: number;
}

async function createSession(
  { device }: TieredCache,
  { ort, sessionOptions = {} }: OnnxDecoderOptions,
  { bytes, externalData }: LoadedModel,
): Promise<OrtSession> {
  const shared = sessionOptionsFor(device);
  const chosen = Object.keys(sessionOptions).filter((name) => name in shared);
  if (chosen.length > 0) {
    throw new TypeError(
      `sessionOptions must not have ${
        chosen.join(" or ")
      }: the session computes on the device of ` +
        "the cache, which TieredCache.open() takes as device",
    );
  }
  const options = {
    ...sessionOptions,
    ...shared,
    ...(externalData.length === 0 ? {} : { externalData }),
  };
  return await runInTurn(ort, () => ort.InferenceSession.create(bytes, options));
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
