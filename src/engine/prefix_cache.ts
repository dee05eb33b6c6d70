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
import { typeInWords } from "../base/options.ts";
import type { TieredCache } from "../tiered_cache.ts";
import type { KeyGroup } from "../prefetch/key_group.ts";
import { checkSequenceKv, copyOperations, hasChunk, type SequenceKv } from "./kv_binding.ts";
import {
  chunksOf,
  firstOf,
  type GroupedKv,
  groupsOf,
  type KvGroup,
  splitByGroup,
} from "./kv_groups.ts";
import { PrefillRate, type PrefillReport } from "./prefill_rate.ts";
import { PrefixHit, runnableAfter } from "./prefix_hit.ts";
import { RecentPrompts } from "./recent_prompts.ts";
import {
  checkPrefillReport,
  checkPromptOptions,
  computedTokensOf,
  type MatchOptions,
  type PrefixCacheOptions,
  type PromptOptions,
  type PutOptions,
  readCacheOptions,
} from "./prefix_options.ts";

/** Result of {@linkcode PrefixCache.put}, in tokens of completely computed chunks. */
export interface PutResult {
  /** Tokens copied into device memory and queued for the adapters. */
  readonly storedTokens: number;
  /** Tokens that were already in device memory. */
  readonly residentTokens: number;
  /** Tokens that did not fit into device memory. */
  readonly skippedTokens: number;
}

/** Caches the KV of prompt prefixes of one model. Several prefix caches can share a cache. */
export class PrefixCache {
  /** Layout of one chunk; of the first group if there are several. */
  readonly layout: KvLayout;
  readonly #cache: TieredCache;
  readonly #groups: readonly KvGroup[];
  readonly #identity: PrefixIdentity;
  readonly #kvRank: number;
  readonly #recent: RecentPrompts;
  readonly #deadline: { readonly baseMs: number; readonly perTokenMs: number };
  /** How fast the engine computes; `undefined` if that does not matter. */
  readonly #rate: PrefillRate | undefined;

  /**
   * Creates a prefix cache on top of `cache`, which remains the caller's to close.
   *
   * @throws {TypeError | RangeError} If a key is unknown, the model or the rank is not valid or is
   * present but `undefined` or `null`, groups differ in chunk size, a window is smaller than 1
   * token, or a chunk does not fit into device memory.
   */
  constructor(cache: TieredCache, options: PrefixCacheOptions) {
    if (typeof (cache as Partial<TieredCache> | undefined)?.matchGroups !== "function") {
      throw new TypeError(`cache must be a TieredCache: received ${typeInWords(cache)}`);
    }
    const { model, layout, kvRank, deadline, recentPrompts, ...prefill } = readCacheOptions(
      options,
    );
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
    this.#rate = prefill.loadOnlyIfFaster ? new PrefillRate(prefill.prefillMsPerToken) : undefined;
    this.#recent = new RecentPrompts(recentPrompts, () => cache.now());
  }

  /**
   * Finds the longest cached prefix of a prompt, in device memory or in the adapters, and leases it
   * in device memory. The engine continues at token `hit.tokens`. At least the last token of the
   * prompt is left to run, because logits are not cached.
   *
   * @param tokens The prompt's token ids.
   * @throws {TypeError | RangeError} If an option or a token id is not valid.
   */
  async match(tokens: TokenIds, options: MatchOptions = {}): Promise<PrefixHit> {
    checkPrompt("match", tokens, options);
    // A chunk that contains only the last token would not be used.
    const chunks = Math.ceil(runnableAfter(tokens.length) / this.layout.chunkTokens);
    const rows = this.#rows(tokens, options, chunks);
    const limits = this.#limits(tokens, options);
    const computeMs = this.#computeMs(tokens.length);
    const hit = await this.#cache.matchGroups(
      rows,
      computeMs === undefined ? limits : { ...limits, computeMs },
    );
    const isWhole = hit.report.miss === undefined;
    const difference = isWhole ? undefined : this.#recent.nearest(tokens, options);
    return new PrefixHit(this.#cache, this.#groups, hit, tokens.length, difference);
  }

  /**
   * Loads the longest cached prefix of a prompt into device memory without leasing it, ahead of an
   * expected request.
   *
   * @returns Length of the prefix in tokens.
   * @throws {TypeError | RangeError} If an option or a token id is not valid.
   */
  async warm(tokens: TokenIds, options: MatchOptions = {}): Promise<number> {
    checkPrompt("warm", tokens, options);
    const rows = this.#rows(tokens, options);
    const { length } = await this.#cache.warm(rows, this.#limits(tokens, options));
    return length * this.layout.chunkTokens;
  }

  /**
   * Returns the keys of all complete chunks of a prompt, for `pin`, `ttl` and `forget` of the cache.
   * They are ordered by chunk, then by group.
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
   * Stores the KV of all computed, complete chunks of a sequence: copies those not yet resident into
   * device memory and queues them for the adapters. Returns immediately. Work that the engine
   * submits later may overwrite its tensors. If the sequence does not fit into device memory, its
   * beginning is stored.
   *
   * @param tokens Token ids of the sequence, including sampled ones.
   * @param kv The engine's K and V of all tokens but the last one, or of the first
   * `options.computedTokens`. The work that computes them must have been submitted. In groups with a
   * window, -1 marks freed blocks.
   * @throws {TypeError | RangeError} If an option or a token id is not valid, or the tensors do not
   * fit the layout, lack the usage `COPY_SRC`, or are mapped. If the device rejects the copies
   * later, because a tensor belongs to another device or was destroyed, the stored chunks are
   * dropped and an error is logged.
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
    // Resident chunks must not be evicted to make room for other chunks of the same sequence.
    using leases = new DisposableStack();
    for (const { keys } of rows) leases.use(this.#cache.leaseResident(keys));
    const reserved: { staged: StagedObject; group: number; chunk: number }[] = [];
    let stored = 0;
    let chunk = 0;
    const isKept = (group: number, chunk: number): boolean =>
      hasChunk(layouts[group] as KvLayout, kvOfGroups[group] as SequenceKv, chunk);
    // After a chunk that does not fit, all remaining ones are skipped.
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
        if (reservation?.status !== "success") return reservation?.status === "already-present";
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
          copyOperations(
            "gather",
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
    // Without this, resident chunks would be evicted before the newer chunks that depend on them.
    for (const { keys } of rows) this.#cache.touch(keys, { isUse: false });
    this.#recent.note(tokens, options);
    const { chunkTokens } = this.layout;
    return {
      storedTokens: stored * chunkTokens,
      residentTokens: (chunk - stored) * chunkTokens,
      skippedTokens: (chunks - chunk) * chunkTokens,
    };
  }

  /**
   * Tells how long the engine took to compute tokens of a prompt, without compilation and waiting.
   * From then on, a match loads only what is estimated to be faster to load than to compute, unless
   * `loadOnlyIfFaster` is false. Some ten reports count; the newest count most.
   *
   * @throws {TypeError | RangeError} If a key is unknown or missing, or a value is not valid.
   */
  reportPrefill(report: PrefillReport): void {
    checkPrefillReport(report);
    this.#rate?.add(report);
  }

  /** Estimated time to compute a prompt behind its first chunks; `undefined` if not known. */
  #computeMs(promptTokens: number): ((chunk: number) => number) | undefined {
    const rate = this.#rate;
    if (rate?.ms(0, promptTokens) === undefined) return undefined;
    const last = runnableAfter(promptTokens);
    return (chunk) => {
      return rate.ms(Math.min(chunk * this.layout.chunkTokens, last), promptTokens) ?? NaN;
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

  /** One row of keys per group; the rows differ only in the group. */
  #rows(
    tokens: TokenIds,
    { salt = "", extraKey = "" }: PromptOptions,
    maxChunks = Infinity,
  ): KeyGroup[] {
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
