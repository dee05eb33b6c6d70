import { HostDevice, TieredCache } from "@kvtier/kvtier";
import { kvLayout, PrefixCache } from "@kvtier/kvtier/engine";
import { createCpuModel } from "../transformer/cpu_model.ts";
import type { LanguageModel } from "../transformer/language_model.ts";
import { DEMO_CONFIG } from "../transformer/model_config.ts";
import { createWebGpuModel } from "../transformer/webgpu_model.ts";

/** Small chunks, because the prompts of this demo are short. */
export const CHUNK_TOKENS = 64;

const MIB = 2 ** 20;

/** Measurements of one request. */
export interface Served {
  /** Time from the request to the logits of its first new token, in milliseconds. */
  readonly ttftMs: number;
  /** Tokens whose K and V came from the cache. */
  readonly hitTokens: number;
  /** What the cache had of the prompt, and why not more. */
  readonly explanation: string;
  /** SHA-256 over the logits of all new tokens, in hexadecimal. */
  readonly logitsSha256: string;
}

/** A language model with a tiered KV cache: the core of a small inference server. */
export class Engine implements AsyncDisposable {
  /** The model. */
  readonly model: LanguageModel;
  /** The cache. */
  readonly cache: TieredCache;
  readonly #prefixes: PrefixCache;
  readonly #gpuDevice: GPUDevice | null;

  private constructor(model: LanguageModel, cache: TieredCache, gpuDevice: GPUDevice | null) {
    const { layers, kvHeads, headDim, seed } = model.config;
    const chunkTokens = CHUNK_TOKENS;
    this.model = model;
    this.cache = cache;
    this.#gpuDevice = gpuDevice;
    this.#prefixes = new PrefixCache(cache, {
      model: { name: "kvtier/demo", revision: `seed ${seed}` },
      layout: kvLayout({ layers, kvHeads, headDim, dtype: "f32", chunkTokens }),
    });
  }

  /** Loads the model, opens the cache on a directory, and runs both once to warm them up. */
  static async open(cacheDir: string): Promise<Engine> {
    const adapter = await navigator.gpu?.requestAdapter();
    const gpuDevice = await adapter?.requestDevice() ?? null;
    const model = gpuDevice === null
      ? createCpuModel(DEMO_CONFIG)
      : createWebGpuModel(gpuDevice, DEMO_CONFIG);
    const cache = await TieredCache.open({
      device: gpuDevice ?? new HostDevice(),
      l1: { capacityBytes: 64 * MIB },
      l2: [{ type: "fs", base_path: cacheDir }],
    });
    const engine = new Engine(model, cache, gpuDevice);
    await model.forward(new Uint32Array(CHUNK_TOKENS), 0);
    engine.forget();
    return engine;
  }

  /**
   * Serves a request: finds the prompt's prefix in the cache, computes the rest, and generates
   * tokens greedily.
   */
  async serve(
    prompt: Uint32Array,
    newTokens: number,
    onProgress?: (done: number, total: number) => void,
  ): Promise<Served> {
    const started = performance.now();
    using hit = await this.#prefixes.match(prompt);
    hit.scatterTo(this.model.kv);
    const served = await this.generate(
      prompt,
      hit.tokens,
      newTokens,
      hit.tokens,
      started,
      onProgress,
    );
    return { ...served, explanation: hit.explain() };
  }

  /** Computes a prompt from token `start` on, and generates tokens greedily. */
  async generate(
    prompt: Uint32Array,
    start: number,
    newTokens: number,
    hitTokens = 0,
    started: number = performance.now(),
    onProgress?: (done: number, total: number) => void,
  ): Promise<Omit<Served, "explanation">> {
    let tokens = prompt;
    let logits = await this.model.forward(tokens, start, onProgress);
    const ttftMs = performance.now() - started;
    const all = new Float32Array(logits.length * newTokens);
    for (let i = 0; i < newTokens; i++) {
      if (i > 0) logits = await this.model.forward(tokens, tokens.length - 1);
      all.set(logits, i * logits.length);
      tokens = Uint32Array.of(...tokens, logits.indexOf(Math.max(...logits)));
    }
    const digest = await crypto.subtle.digest("SHA-256", all);
    return { ttftMs, hitTokens, logitsSha256: new Uint8Array(digest).toHex() };
  }

  /** Stores the K and V of a computed prompt, and waits until they are on disk. */
  async save(prompt: Uint32Array): Promise<void> {
    this.#prefixes.put(prompt, this.model.kv, { computedTokens: prompt.length });
    await this.cache.flush();
  }

  /** Overwrites the model's K and V, so that only the cache can restore them. */
  forget(): void {
    const encoder = this.#gpuDevice?.createCommandEncoder();
    for (const tensor of this.model.kv.flatMap(({ key, value }) => [key, value])) {
      if (tensor instanceof Uint8Array) tensor.fill(0);
      else encoder?.clearBuffer(tensor);
    }
    if (encoder !== undefined) this.#gpuDevice?.queue.submit([encoder.finish()]);
  }

  /** Closes the cache and releases the model and the device. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.cache.close();
    this.model[Symbol.dispose]();
    this.#gpuDevice?.destroy();
  }
}
