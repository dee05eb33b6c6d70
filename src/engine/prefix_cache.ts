import { chunkHashes, rootHash } from "../keys/chunk_hash.ts";
import type { KvLayout } from "../keys/kv_layout.ts";
import { ObjectKey } from "../keys/object_key.ts";
import type { MemoryRange } from "../memory/memory_device.ts";
import type { CacheHit, TieredCache } from "../tiered_cache.ts";
import {
  checkKvTensors,
  gatherOperations,
  type KvTensors,
  scatterOperations,
} from "./kv_binding.ts";

/** Time that a match may take whatever its length. */
const DEADLINE_BASE_MS = 2_000;
/** Time that a match may take for each token: well below what a prefill takes. */
const DEADLINE_PER_TOKEN_MS = 0.1;

/** What a {@linkcode PrefixCache} caches for. */
export interface PrefixCacheOptions {
  /** The model. */
  readonly model: {
    /** Its name: at most 256 UTF-8 bytes without `@`, NUL and control characters. */
    readonly name: string;
    /** Which weights: a commit, a version, a digest. @default {""} */
    readonly revision?: string;
  };
  /** Layout of one chunk of its KV. */
  readonly layout: KvLayout;
  /** Which part of the model's KV this process has. @default {0} */
  readonly kvRank?: number;
}

/** Options of {@linkcode PrefixCache.match}. */
export interface MatchOptions {
  /** Isolates tenants: a prefix stored under one salt is never found under another. @default {""} */
  readonly salt?: string;
  /**
   * After this time the hit is what has arrived.
   *
   * @default {2000 + 0.1 * tokens}
   */
  readonly deadlineMs?: number;
  /** Gives up: the call rejects with the signal's reason. */
  readonly signal?: AbortSignal;
}

/** Options of {@linkcode PrefixCache.put}. */
export interface PutOptions {
  /** As in {@linkcode MatchOptions}. @default {""} */
  readonly salt?: string;
}

/** What {@linkcode PrefixCache.put} did, in tokens. */
export interface PutResult {
  /** Tokens copied into device memory and queued for the adapters. */
  readonly storedTokens: number;
  /** Tokens that were in device memory already. */
  readonly residentTokens: number;
  /** Tokens of complete chunks that found no room. */
  readonly skippedTokens: number;
}

/** The cached prefix of a prompt, pinned in device memory until disposed. */
export class PrefixHit implements Disposable {
  /** Tokens whose KV need not be computed: a multiple of the chunk size. */
  readonly tokens: number;
  /** How many of them were in device memory before; the others came from an adapter. */
  readonly l1Tokens: number;
  readonly #cache: TieredCache;
  readonly #layout: KvLayout;
  readonly #hit: CacheHit;

  /** @ignore Made by {@linkcode PrefixCache.match}. */
  constructor(cache: TieredCache, layout: KvLayout, hit: CacheHit) {
    this.#cache = cache;
    this.#layout = layout;
    this.#hit = hit;
    this.tokens = hit.length * layout.chunkTokens;
    this.l1Tokens = hit.l1Objects * layout.chunkTokens;
  }

  /**
   * Where the chunks lie in device memory, in order, for engines that read them in place.
   *
   * @throws {DeviceLostError} If the device was lost since.
   * @throws {Error} If the hit was disposed, or held for longer than pins live.
   */
  ranges(): MemoryRange[] {
    return this.#hit.ranges();
  }

  /**
   * Copies the prefix into the engine's tensors, from token 0 on. The copies are submitted at once:
   * they come before all work that is submitted to the device's queue later.
   *
   * @throws {RangeError} If the tensors do not fit the layout.
   * @throws {DeviceLostError} If the device was lost since.
   * @throws {Error} If the hit was disposed, or held for longer than pins live.
   */
  scatterTo(kv: KvTensors): void {
    const ranges = this.ranges();
    checkKvTensors(this.#layout, kv, ranges.length);
    this.#cache.device.copy(
      ranges.flatMap((range, chunk) => scatterOperations(this.#layout, kv, chunk, range)),
    );
  }

  /** Gives up the pins; what was copied stays. */
  [Symbol.dispose](): void {
    this.#hit[Symbol.dispose]();
  }
}

/** Caches the KV of prompt prefixes of one model: tokens in, device memory out. */
export class PrefixCache {
  /** Layout of one chunk. */
  readonly layout: KvLayout;
  readonly #cache: TieredCache;
  readonly #model: PrefixCacheOptions["model"];
  readonly #kvRank: number;

  /**
   * Caches for one model; several can share a cache.
   *
   * @throws {TypeError | RangeError} If the model or the rank is not valid, or a chunk does not fit
   * into device memory.
   */
  constructor(cache: TieredCache, options: PrefixCacheOptions) {
    const { model, layout, kvRank = 0 } = options;
    const chunkHash = rootHash({ model: model.name, ...revisionOf(model), layout });
    new ObjectKey({ chunkHash, model: model.name, kvRank });
    if (layout.byteLength > cache.maxObjectBytes) {
      throw new RangeError(
        `Chunk of ${layout.byteLength} bytes must fit into device memory of ${cache.maxObjectBytes} bytes`,
      );
    }
    this.#cache = cache;
    this.#model = model;
    this.#kvRank = kvRank;
    this.layout = layout;
  }

  /**
   * Finds the longest cached prefix of a prompt, in device memory or in the adapters, and pins it
   * in device memory. An engine goes on at token `hit.tokens`, or at the last token of the prompt
   * if all of it was found, since the next token's logits are not cached.
   *
   * @param tokens The prompt's token ids.
   * @throws {TypeError | RangeError} If the salt or a token id is not valid.
   */
  async match(tokens: ArrayLike<number>, options: MatchOptions = {}): Promise<PrefixHit> {
    const { salt = "", signal } = options;
    const deadlineMs = options.deadlineMs ??
      DEADLINE_BASE_MS + DEADLINE_PER_TOKEN_MS * tokens.length;
    const hit = await this.#cache.match(this.#keys(tokens, salt), this.layout, {
      deadlineMs,
      ...(signal === undefined ? {} : { signal }),
    });
    return new PrefixHit(this.#cache, this.layout, hit);
  }

  /**
   * Takes over the KV of all complete chunks of a sequence: copies into device memory what is not
   * there, and queues it for the adapters. Returns at once; the engine may change its tensors by
   * work that it submits later. Of a sequence that is larger than device memory the head is kept.
   *
   * @param tokens The token ids whose KV is in the tensors, from token 0 on; the work that computes
   * it must be submitted.
   * @param kv The engine's tensors.
   * @throws {TypeError | RangeError} If the salt or a token id is not valid, or the tensors do not
   * fit the layout.
   */
  put(tokens: ArrayLike<number>, kv: KvTensors, options: PutOptions = {}): PutResult {
    const keys = this.#keys(tokens, options.salt ?? "");
    checkKvTensors(this.layout, kv, keys.length);
    // What is resident must not be evicted to make room for the rest of the same sequence.
    using _pinned = this.#cache.pinResident(keys);
    const reserved: { key: ObjectKey; chunk: number; range: MemoryRange }[] = [];
    let resident = 0;
    for (const [chunk, key] of keys.entries()) {
      const [reservation] = this.#cache.reserveWrite([key], this.layout);
      if (reservation?.status === "success") {
        reserved.push({ key, chunk, range: reservation.range });
      } else if (reservation?.status === "key-not-writable") {
        resident++;
      } else {
        break;
      }
    }
    const written = reserved.map(({ key }) => key);
    try {
      this.#cache.device.copy(
        reserved.flatMap(({ chunk, range }) => gatherOperations(this.layout, kv, chunk, range)),
      );
    } catch (error) {
      this.#cache.cancelWrite(written);
      throw error;
    }
    this.#cache.finishWrite(written);
    // Else a head that was there before would be evicted before the tail that needs it.
    this.#cache.touch(keys);
    const { chunkTokens } = this.layout;
    return {
      storedTokens: written.length * chunkTokens,
      residentTokens: resident * chunkTokens,
      skippedTokens: (keys.length - written.length - resident) * chunkTokens,
    };
  }

  #keys(tokens: ArrayLike<number>, salt: string): ObjectKey[] {
    const { name } = this.#model;
    const root = rootHash({ model: name, ...revisionOf(this.#model), layout: this.layout, salt });
    let key: ObjectKey | undefined;
    return chunkHashes(root, tokens, this.layout.chunkTokens).map((chunkHash) =>
      key = key?.withChunkHash(chunkHash) ??
        new ObjectKey({ chunkHash, model: name, kvRank: this.#kvRank, cacheSalt: salt })
    );
  }
}

function revisionOf(model: PrefixCacheOptions["model"]): { revision?: string } {
  return model.revision === undefined ? {} : { revision: model.revision };
}
