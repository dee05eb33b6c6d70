import {
  checkTokenIds,
  chunkHashes,
  type PrefixIdentity,
  rootHash,
  type TokenIds,
} from "../keys/chunk_hash.ts";
import type { KvLayout } from "../keys/kv_layout.ts";
import { ObjectKey } from "../keys/object_key.ts";
import type { StagedObject } from "../l1/l1_cache.ts";
import type { DeviceAnswer } from "../memory/memory_device.ts";
import { typeInWords } from "../runtime/options.ts";
import type { TieredCache } from "../tiered_cache.ts";
import type { KeyRow } from "../tiering/key_rows.ts";
import { checkSequenceKv, gatherOperations, hasChunk, type SequenceKv } from "./kv_binding.ts";
import {
  chunksOf,
  firstOf,
  type GroupedKv,
  groupsOf,
  type KvGroup,
  splitByGroup,
} from "./kv_groups.ts";
import { PrefixHit, runnableAfter } from "./prefix_hit.ts";
import {
  checkPromptOptions,
  computedTokensOf,
  type MatchOptions,
  type PrefixCacheOptions,
  type PromptOptions,
  type PutOptions,
  readCacheOptions,
} from "./prefix_options.ts";

/** What {@linkcode PrefixCache.put} did, in tokens. Chunks not computed in full are not counted. */
export interface PutResult {
  /** Tokens copied into device memory and queued for the adapters. */
  readonly storedTokens: number;
  /** Tokens that were in device memory already. */
  readonly residentTokens: number;
  /** Tokens of computed chunks that found no room. */
  readonly skippedTokens: number;
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
   * @throws {TypeError | RangeError} If a key is unknown, the model or the rank is not valid or was
   * lost on the way, groups differ in chunk size, a window is not at least 1 token, or a chunk does
   * not fit into device memory.
   */
  constructor(cache: TieredCache, options: PrefixCacheOptions) {
    if (typeof (cache as Partial<TieredCache> | undefined)?.matchRows !== "function") {
      throw new TypeError(`cache must be a TieredCache: received ${typeInWords(cache)}`);
    }
    const { model, layout, kvRank, deadline } = readCacheOptions(options);
    const groups = groupsOf(layout);
    new ObjectKey({ chunkHash: new Uint8Array(32), model: model.name, kvRank });
    this.layout = firstOf(groups).layout;
    for (const { layout } of groups) cache.checkLayout(layout);
    const { name, revision = "" } = model;
    const windows = groups.map(({ windowTokens }) => windowTokens);
    this.#identity = { model: name, revision, layout: groups.map(({ layout }) => layout), windows };
    rootHash(this.#identity);
    this.#cache = cache;
    this.#groups = groups;
    this.#kvRank = kvRank;
    this.#deadline = deadline;
  }

  /**
   * Finds the longest cached prefix of a prompt, in device memory or in the adapters, and pins it
   * in device memory. An engine goes on at token `hit.tokens`, which leaves at least the last token
   * of the prompt to run: its logits are not cached.
   *
   * @param tokens The prompt's token ids.
   * @throws {TypeError | RangeError} If an option or a token id is not valid.
   */
  async match(tokens: TokenIds, options: MatchOptions = {}): Promise<PrefixHit> {
    checkPrompt("match", tokens, options);
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
   * @throws {TypeError | RangeError} If an option or a token id is not valid.
   */
  async warm(tokens: TokenIds, options: MatchOptions = {}): Promise<number> {
    checkPrompt("warm", tokens, options);
    const rows = this.#rows(tokens, options);
    const { length } = await this.#cache.warm(rows, this.#limits(tokens, options));
    return length * this.layout.chunkTokens;
  }

  /**
   * The keys of all complete chunks of a prompt, in order, for `pin`, `ttl` and `forget` of the
   * cache; of each chunk, those of all groups.
   *
   * @throws {TypeError | RangeError} If an option or a token id is not valid.
   */
  keys(tokens: TokenIds, options: PromptOptions = {}): ObjectKey[] {
    checkPrompt("keys", tokens, options);
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
   * @throws {TypeError | RangeError} If an option or a token id is not valid, or the tensors do not
   * fit the layout, were not made to be copied from, or are mapped. If the device refuses them
   * later, because they are another device's or were destroyed, what was put is given up, and logged.
   */
  put(tokens: TokenIds, kv: GroupedKv, options: PutOptions = {}): PutResult {
    checkPrompt("put", tokens, options);
    const computed = computedTokensOf(tokens, options);
    const rows = this.#rows(tokens, options, Math.floor(computed / this.layout.chunkTokens));
    const chunks = rows[0]?.keys.length ?? 0;
    const kvOfGroups = splitByGroup(this.#groups, kv);
    for (const [g, { layout, windowTokens }] of this.#groups.entries()) {
      const span = { first: 0, end: chunks * layout.chunkTokens };
      checkSequenceKv(layout, kvOfGroups[g] as SequenceKv, span, windowTokens !== undefined);
    }
    const layouts = this.#groups.map(({ layout }) => layout);
    // What is resident must not be evicted to make room for the rest of the same sequence.
    using pins = new DisposableStack();
    for (const { keys } of rows) pins.use(this.#cache.pinResident(keys));
    const reserved: { staged: StagedObject; group: number; chunk: number }[] = [];
    let stored = 0;
    let chunk = 0;
    const isKept = (group: number, chunk: number): boolean =>
      hasChunk(layouts[group] as KvLayout, kvOfGroups[group] as SequenceKv, chunk);
    // Behind a chunk that has no room all others are skipped.
    const countSkipped = (): number => {
      let objects = 0;
      for (let n = chunk; n < chunks; n++) {
        for (const group of layouts.keys()) if (isKept(group, n)) objects++;
      }
      return objects;
    };
    for (; chunk < chunks; chunk++) {
      const before = reserved.length;
      const isComplete = rows.every(({ keys, layout }, group) => {
        const key = keys[chunk] as ObjectKey;
        if (!isKept(group, chunk)) return true;
        const [reservation] = this.#cache.reserveWrite([key], layout, countSkipped);
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
    let isCopied: DeviceAnswer;
    try {
      isCopied = this.#cache.device.copy(
        reserved.flatMap(({ group, chunk, staged: { range } }) =>
          gatherOperations(
            (this.#groups[group] as KvGroup).layout,
            kvOfGroups[group] as SequenceKv,
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
    maxChunks = Infinity,
  ): KeyRow[] {
    const { model } = this.#identity;
    const [whole, positionedKeys] = typeof extraKey === "string" ? [extraKey, []] : ["", extraKey];
    const root = rootHash({ ...this.#identity, salt, extraKey: whole });
    const hashes = chunkHashes(root, tokens, this.layout.chunkTokens, {
      maxChunks,
      positionedKeys,
    });
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

function checkPrompt(
  call: Parameters<typeof checkPromptOptions>[0],
  tokens: TokenIds,
  options: PromptOptions,
): void {
  checkTokenIds(tokens);
  checkPromptOptions(call, options);
}
