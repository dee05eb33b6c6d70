import { chunkHashes, type PrefixIdentity, rootHash, type TokenIds } from "../keys/chunk_hash.ts";
import type { KvLayout } from "../keys/kv_layout.ts";
import { ObjectKey } from "../keys/object_key.ts";
import type { StagedObject } from "../l1/l1_cache.ts";
import type { MemoryRange } from "../memory/memory_device.ts";
import type { CacheHit } from "../cache_hit.ts";
import type { TieredCache } from "../tiered_cache.ts";
import type { KeyRow } from "../tiering/key_rows.ts";
import {
  checkSequenceKv,
  gatherOperations,
  hasChunk,
  type KvLayer,
  scatterOperations,
  type SequenceKv,
} from "./kv_binding.ts";

/** Layers whose KV is kept in objects of their own, because they attend differently. */
export interface KvGroup {
  /** Layout of one chunk of their KV; all groups have one chunk size. */
  readonly layout: KvLayout;
  /**
   * For a sliding window: its size in tokens, the current one included. Only the chunks that hold
   * the last so many tokens of a prefix are needed for it. Left out, all are.
   */
  readonly windowTokens?: number;
}

/** KV of all layers; where they form groups, that of each group. */
export type GroupedKv = SequenceKv | readonly SequenceKv[];

/** What a {@linkcode PrefixCache} caches for. */
export interface PrefixCacheOptions {
  /** The model. */
  readonly model: {
    /** Its name: at most 256 UTF-8 bytes without `@`, NUL and control characters. */
    readonly name: string;
    /** Which weights: a commit, a version, a digest. @default {""} */
    readonly revision?: string;
  };
  /** Layout of one chunk of its KV; for models with several kinds of attention, one group each. */
  readonly layout: KvLayout | readonly KvGroup[];
  /** Which part of the model's KV this process has. @default {0} */
  readonly kvRank?: number;
  /**
   * Time that a match may take: `baseMs` and `perTokenMs` for each token of the prompt. Set
   * `perTokenMs` below what a prefill takes, and no match is slower than computing.
   *
   * @default {{ baseMs: 2000, perTokenMs: 0.1 }}
   */
  readonly deadline?: { readonly baseMs?: number; readonly perTokenMs?: number };
}

/** What decides, beside its tokens, which KV a prompt has. */
export interface PromptOptions {
  /** Isolates tenants: what is stored under one salt is never found under another. @default {""} */
  readonly salt?: string;
  /**
   * Whatever else of this request changes K and V: a LoRA adapter, the digests of images whose
   * tokens are placeholders. Prompts with different ones share nothing. @default {""}
   */
  readonly extraKey?: string;
}

/** Options of {@linkcode PrefixCache.match}. */
export interface MatchOptions extends PromptOptions {
  /**
   * After this time the hit is what has arrived.
   *
   * @default {by `deadline` of the prefix cache}
   */
  readonly deadlineMs?: number;
  /** Gives up: the call rejects with the signal's reason. */
  readonly signal?: AbortSignal;
}

/** Options of {@linkcode PrefixCache.put}. */
export interface PutOptions extends PromptOptions {
  /**
   * How many tokens, from the first one on, have their K and V in the tensors. A decoder computes
   * those of a token when it computes the next one, so that the token sampled last has none yet;
   * after a prefill, `tokens.length` stores the last chunk of a prompt that fills it.
   *
   * @default {tokens.length - 1}
   */
  readonly computedTokens?: number;
}

/** What {@linkcode PrefixCache.put} did, in tokens. Chunks not computed in full are not counted. */
export interface PutResult {
  /** Tokens copied into device memory and queued for the adapters. */
  readonly storedTokens: number;
  /** Tokens that were in device memory already. */
  readonly residentTokens: number;
  /** Tokens of computed chunks that found no room. */
  readonly skippedTokens: number;
}

/** The cached prefix of a prompt, pinned in device memory until disposed. */
export class PrefixHit implements Disposable {
  /**
   * Tokens whose KV need not be computed: whole chunks, but not the last token of the prompt, whose
   * logits are needed. The engine goes on at this token.
   */
  readonly tokens: number;
  /**
   * How many of them were in device memory before; the others came from an adapter. With groups, in
   * proportion to the objects.
   */
  readonly l1Tokens: number;
  readonly #cache: TieredCache;
  readonly #groups: readonly KvGroup[];
  readonly #hit: CacheHit;

  /** @ignore Made by {@linkcode PrefixCache.match}. */
  constructor(
    cache: TieredCache,
    groups: readonly KvGroup[],
    hit: CacheHit,
    promptTokens: number,
  ) {
    this.#cache = cache;
    this.#groups = groups;
    this.#hit = hit;
    const { chunkTokens } = firstOf(groups).layout;
    const needed = groups.reduce((sum, group) => sum + Math.min(hit.length, chunksOf(group)), 0);
    const l1Chunks = Math.floor(hit.length * hit.l1Objects / Math.max(1, needed));
    this.tokens = Math.min(hit.length * chunkTokens, runnableAfter(promptTokens));
    this.l1Tokens = Math.min(l1Chunks * chunkTokens, this.tokens);
  }

  /**
   * Where the chunks lie in device memory, in order and whole, for engines that read them in place:
   * until the hit is disposed, and no longer than `l1.readTtlMs` unless {@linkcode renew} is called.
   * Of a group with a window they are the last ones of the prefix. {@linkcode tokens} may end before
   * the last token of the last chunk.
   *
   * @throws {DeviceLostError} If the device was lost since.
   * @throws {Error} If the hit was disposed, or held for longer than pins live.
   */
  ranges(group = 0): MemoryRange[] {
    return this.#hit.ranges(group);
  }

  /**
   * Copies {@linkcode tokens} tokens into the engine's tensors, from token 0 on; of a group with a
   * window, the tokens of its last chunks to where they belong. The copies are submitted at once:
   * they come before all work that is submitted to the device's queue later. They are whole words
   * of 4 bytes: where a token is none, up to 3 bytes of the next one are overwritten.
   *
   * @returns Whether the device takes them, known soon: not if a tensor is another device's or was
   * destroyed. That is logged, too.
   * @throws {RangeError} If the tensors do not fit the layout.
   * @throws {TypeError} If a tensor was not made to be copied to, or is mapped.
   * @throws {DeviceLostError} If the device was lost since.
   * @throws {Error} If the hit was disposed, or held for longer than pins live.
   */
  scatterTo(kv: GroupedKv): Promise<boolean> {
    const { length } = this.#hit;
    const kvOfGroups = splitByGroup(this.#groups, kv);
    const operations = this.#groups.flatMap(({ layout }, g) => {
      const { chunkTokens } = layout;
      const ranges = this.ranges(g);
      const group = kvOfGroups[g] ?? [];
      const first = length - ranges.length;
      checkSequenceKv(layout, group, { first: first * chunkTokens, end: this.tokens });
      return ranges.flatMap((range, i) => {
        const chunk = first + i;
        const tokens = Math.min(chunkTokens, this.tokens - chunk * chunkTokens);
        return scatterOperations(layout, group, chunk, range, tokens);
      });
    });
    return this.#cache.device.copy(operations);
  }

  /**
   * Keeps the prefix for another `l1.readTtlMs`, for engines that read it in place for long.
   *
   * @returns Whether it is still there; if not, its ranges may be others' already.
   */
  renew(): boolean {
    return this.#hit.renew();
  }

  /** Gives up the pins; what was copied stays. */
  [Symbol.dispose](): void {
    this.#hit[Symbol.dispose]();
  }
}

/** Caches the KV of prompt prefixes of one model: tokens in, device memory out. */
export class PrefixCache {
  /** Layout of one chunk, of the first group if there are several. */
  readonly layout: KvLayout;
  readonly #cache: TieredCache;
  readonly #groups: readonly KvGroup[];
  readonly #identity: PrefixIdentity;
  readonly #kvRank: number;
  readonly #deadline: { readonly baseMs: number; readonly perTokenMs: number };

  /**
   * Caches for one model; several can share a cache.
   *
   * @throws {TypeError | RangeError} If the model or the rank is not valid, groups differ in chunk
   * size, a window is not at least 1 token, or a chunk does not fit into device memory.
   */
  constructor(cache: TieredCache, options: PrefixCacheOptions) {
    const { model, layout, kvRank = 0, deadline = {} } = options;
    if (typeof model?.name !== "string") {
      throw new TypeError(`model must be { name, revision? }: received ${typeof model}`);
    }
    if (!Array.isArray(layout) && !("fingerprint" in layout)) {
      throw new TypeError("layout must be made by kvLayout(), or be a list of groups");
    }
    const groups = "fingerprint" in layout ? [{ layout }] : layout;
    new ObjectKey({ chunkHash: new Uint8Array(32), model: model.name, kvRank });
    this.layout = firstOf(groups).layout;
    for (const { layout: { chunkTokens }, windowTokens = 1 } of groups) {
      if (chunkTokens !== this.layout.chunkTokens) {
        throw new RangeError(
          `Groups must have one chunk size: received ${this.layout.chunkTokens} and ${chunkTokens} tokens`,
        );
      }
      if (!(windowTokens >= 1)) {
        throw new RangeError(`windowTokens must be at least 1: received ${windowTokens}`);
      }
    }
    for (const { layout } of groups) cache.checkLayout(layout);
    const { name, revision = "" } = model;
    const windows = groups.map(({ windowTokens }) => windowTokens);
    this.#identity = { model: name, revision, layout: groups.map(({ layout }) => layout), windows };
    rootHash(this.#identity);
    this.#cache = cache;
    this.#groups = groups;
    this.#kvRank = kvRank;
    const { baseMs = 2_000, perTokenMs = 0.1 } = deadline;
    for (const [name, ms] of Object.entries({ baseMs, perTokenMs })) {
      if (!(ms >= 0)) throw new RangeError(`deadline.${name} must be at least 0: received ${ms}`);
    }
    this.#deadline = { baseMs, perTokenMs };
  }

  /**
   * Finds the longest cached prefix of a prompt, in device memory or in the adapters, and pins it
   * in device memory. An engine goes on at token `hit.tokens`, which leaves at least the last token
   * of the prompt to run: its logits are not cached.
   *
   * @param tokens The prompt's token ids.
   * @throws {TypeError | RangeError} If the salt or a token id is not valid.
   */
  async match(tokens: TokenIds, options: MatchOptions = {}): Promise<PrefixHit> {
    // Of a chunk that holds the last token alone nothing would be used.
    const chunks = Math.ceil(runnableAfter(tokens.length) / this.layout.chunkTokens);
    const rows = this.#rows(tokens, options, chunks);
    const hit = await this.#cache.matchRows(rows, this.#limits(tokens, options));
    return new PrefixHit(this.#cache, this.#groups, hit, tokens.length);
  }

  /**
   * Brings the longest cached prefix of a prompt into device memory and leaves it there, without
   * pins: for a request that is about to come.
   *
   * @returns How many tokens it has.
   * @throws {TypeError | RangeError} If the salt or a token id is not valid.
   */
  async warm(tokens: TokenIds, options: MatchOptions = {}): Promise<number> {
    const rows = this.#rows(tokens, options);
    const { length } = await this.#cache.warm(rows, this.#limits(tokens, options));
    return length * this.layout.chunkTokens;
  }

  /**
   * The keys of all complete chunks of a prompt, in order, for `pin`, `ttl` and `forget` of the
   * cache; of each chunk, those of all groups.
   *
   * @throws {TypeError | RangeError} If the salt or a token id is not valid.
   */
  keys(tokens: TokenIds, options: PromptOptions = {}): ObjectKey[] {
    const rows = this.#rows(tokens, options);
    return (rows[0]?.keys ?? []).flatMap((_, chunk) =>
      rows.flatMap(({ keys }) => keys[chunk] ?? [])
    );
  }

  /**
   * Takes over the KV of all complete chunks of a sequence that are computed: copies into device
   * memory what is not there, and queues it for the adapters. Returns at once; the engine may change
   * its tensors by work that it submits later. Of a sequence that is larger than device memory the
   * head is kept.
   *
   * @param tokens The token ids of the sequence, those sampled included.
   * @param kv The engine's K and V, from token 0 on, of all tokens but the last one, or of
   * `options.computedTokens`; the work that computes it must be submitted. Of groups with a window,
   * blocks that are gone may be -1.
   * @throws {TypeError | RangeError} If the salt or a token id is not valid, or the tensors do not
   * fit the layout, were not made to be copied from, or are mapped. If the device refuses them
   * later, because they are another device's or were destroyed, what was put is removed, and logged.
   */
  put(tokens: TokenIds, kv: GroupedKv, options: PutOptions = {}): PutResult {
    const computed = computedTokensOf(tokens, options);
    const rows = this.#rows(tokens, options, Math.floor(computed / this.layout.chunkTokens));
    const chunks = rows[0]?.keys.length ?? 0;
    const kvOfGroups = splitByGroup(this.#groups, kv);
    for (const [g, { layout, windowTokens }] of this.#groups.entries()) {
      const span = { first: 0, end: chunks * layout.chunkTokens };
      checkSequenceKv(layout, kvOfGroups[g] ?? [], span, windowTokens !== undefined);
    }
    const layouts = this.#groups.map(({ layout }) => layout);
    // What is resident must not be evicted to make room for the rest of the same sequence.
    using pins = new DisposableStack();
    for (const { keys } of rows) pins.use(this.#cache.pinResident(keys));
    const reserved: { staged: StagedObject; group: number; chunk: number }[] = [];
    let stored = 0;
    let chunk = 0;
    for (; chunk < chunks; chunk++) {
      const before = reserved.length;
      const isComplete = rows.every(({ keys, layout }, group) => {
        const key = keys[chunk] as ObjectKey;
        if (!hasChunk(layouts[group] as KvLayout, kvOfGroups[group] ?? [], chunk)) return true;
        const [reservation] = this.#cache.reserveWrite([key], layout);
        if (reservation?.status !== "success") return reservation?.status === "key-not-writable";
        reserved.push({ staged: reservation.staged, group, chunk });
        return true;
      });
      if (!isComplete) {
        this.#cache.cancelWrite(reserved.splice(before).map(({ staged }) => staged));
        break;
      }
      if (reserved.length > before) stored++;
    }
    const written = reserved.map(({ staged }) => staged);
    let isCopied: Promise<boolean>;
    try {
      isCopied = this.#cache.device.copy(
        reserved.flatMap(({ group, chunk, staged: { range } }) =>
          gatherOperations(
            (this.#groups[group] as KvGroup).layout,
            kvOfGroups[group] ?? [],
            chunk,
            range,
          )
        ),
      );
    } catch (error) {
      this.#cache.cancelWrite(written);
      throw error;
    }
    this.#cache.finishWrite(written, isCopied);
    // Else a head that was there before would be evicted before the tail that needs it.
    for (const { keys } of rows) this.#cache.touch(keys);
    const { chunkTokens } = this.layout;
    return {
      storedTokens: stored * chunkTokens,
      residentTokens: (chunk - stored) * chunkTokens,
      skippedTokens: (chunks - chunk) * chunkTokens,
    };
  }

  #limits(
    tokens: TokenIds,
    { deadlineMs, signal }: MatchOptions,
  ): { deadlineMs: number; signal?: AbortSignal } {
    const { baseMs, perTokenMs } = this.#deadline;
    return {
      deadlineMs: deadlineMs ?? baseMs + perTokenMs * tokens.length,
      ...(signal === undefined ? {} : { signal }),
    };
  }

  /** One row of keys for each group: they differ in the group only. */
  #rows(
    tokens: TokenIds,
    { salt = "", extraKey = "" }: PromptOptions,
    maxChunks?: number,
  ): KeyRow[] {
    const { model } = this.#identity;
    const root = rootHash({ ...this.#identity, salt, extraKey });
    const hashes = chunkHashes(root, tokens, this.layout.chunkTokens, maxChunks);
    return this.#groups.map((group, objectGroup) => {
      const { layout } = group;
      let key: ObjectKey | undefined;
      const keys = hashes.map((chunkHash) =>
        key = key?.withChunkHash(chunkHash) ??
          new ObjectKey({ chunkHash, model, kvRank: this.#kvRank, objectGroup, cacheSalt: salt })
      );
      if (group.windowTokens === undefined) return { keys, layout };
      return { keys, layout, windowChunks: chunksOf(group) };
    });
  }
}

function firstOf(groups: readonly KvGroup[]): KvGroup {
  const [first] = groups;
  if (first === undefined) throw new RangeError("Layout must have a group: received none");
  return first;
}

/** Tokens of a prompt after which there is still one to run. */
function runnableAfter(promptTokens: number): number {
  return Math.max(0, promptTokens - 1);
}

function computedTokensOf({ length }: TokenIds, { computedTokens }: PutOptions): number {
  if (computedTokens === undefined) return Math.max(0, length - 1);
  if (Number.isInteger(computedTokens) && computedTokens >= 0 && computedTokens <= length) {
    return computedTokens;
  }
  throw new RangeError(
    `computedTokens must be an integer from 0 to ${length}, the tokens given: received ${computedTokens}`,
  );
}

/** The most chunks of a group that a prefix needs. */
function chunksOf({ layout, windowTokens = Infinity }: KvGroup): number {
  return Math.ceil(windowTokens / layout.chunkTokens);
}

/** The KV of each group. */
function splitByGroup(groups: readonly KvGroup[], kv: GroupedKv): readonly SequenceKv[] {
  const parts = kv as readonly (KvLayer | SequenceKv)[];
  const isGrouped = Array.isArray(kv) && parts.some((part) => !("key" in part));
  const kvOfGroups = (isGrouped ? kv : [kv]) as readonly SequenceKv[];
  if (kvOfGroups.length === groups.length) return kvOfGroups;
  throw new RangeError(
    `KV must be given for ${groups.length} groups: received ${kvOfGroups.length}`,
  );
}
