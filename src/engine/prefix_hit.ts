import type { CacheHit } from "../cache_hit.ts";
import type { MemoryRange } from "../memory/memory_device.ts";
import { checkNumber } from "../base/options.ts";
import type { TieredCache } from "../tiered_cache.ts";
import { checkSequenceKv, copyOperations, type SequenceKv } from "./kv_binding.ts";
import { explainPrefix, type PrefixReport, prefixReport } from "./prefix_report.ts";
import type { PromptDifference } from "./recent_prompts.ts";
import { chunksOf, firstOf, type GroupedKv, type KvGroup, splitByGroup } from "./kv_groups.ts";

/** The cached prefix of a prompt, leased in device memory until disposed. */
export class PrefixHit implements Disposable {
  /**
   * Number of tokens whose KV need not be computed, and index of the token at which the engine
   * continues. Covers whole chunks, but never the last token of the prompt, whose logits are needed.
   */
  readonly tokens: number;
  /**
   * Number of them that were already in device memory; the others came from adapters. With several
   * groups, estimated from the share of objects.
   */
  readonly l1Tokens: number;
  /** Where the tokens came from, and why there are no more of them. */
  readonly report: PrefixReport;
  readonly #cache: TieredCache;
  readonly #groups: readonly KvGroup[];
  readonly #hit: CacheHit;

  /** @ignore Created by {@linkcode PrefixCache.match}. */
  constructor(
    cache: TieredCache,
    groups: readonly KvGroup[],
    hit: CacheHit,
    promptTokens: number,
    difference?: PromptDifference,
  ) {
    this.#cache = cache;
    this.#groups = groups;
    this.#hit = hit;
    const { chunkTokens } = firstOf(groups).layout;
    const needed = groups.reduce((sum, group) => sum + Math.min(hit.length, chunksOf(group)), 0);
    const l1Chunks = Math.floor(hit.length * hit.l1Objects / Math.max(1, needed));
    this.tokens = Math.min(hit.length * chunkTokens, runnableAfter(promptTokens));
    this.l1Tokens = Math.min(l1Chunks * chunkTokens, this.tokens);
    this.report = prefixReport(hit.report, {
      promptTokens,
      chunkTokens,
      tokens: this.tokens,
      l1Tokens: this.l1Tokens,
      ...(difference === undefined ? {} : { difference }),
    });
  }

  /**
   * The device memory of the chunks, in order, for engines that read them in place. Valid until the
   * hit is disposed, but for at most `l1.readTtlMs` unless {@linkcode renew} is called. For a group
   * with a window, only the last chunks of the prefix. {@linkcode tokens} may end before the last
   * token of the last chunk.
   *
   * @param group Index of the group.
   * @throws {RangeError} If there is no such group.
   * @throws {DeviceLostError} If the device has been lost.
   * @throws {Error} If the hit is disposed or its lease has expired.
   */
  ranges(group = 0): MemoryRange[] {
    const maximum = this.#groups.length - 1;
    checkNumber("group", group, { minimum: 0, maximum, multipleOf: 1 });
    return this.#hit.ranges(group);
  }

  /**
   * Copies the first {@linkcode tokens} tokens into the engine's tensors, starting at token 0; for a
   * group with a window, only the tokens of its last chunks, to their positions. The copies are
   * submitted immediately, ahead of all work submitted to the device's queue later. Copies are whole
   * words of 4 bytes: if a token is not, up to 3 bytes of the next one are overwritten.
   *
   * @returns Whether the device accepts the copies. It rejects them, and an error is logged, if a
   * tensor belongs to another device or was destroyed.
   * @throws {RangeError} If the tensors do not fit the layout.
   * @throws {TypeError} If a tensor lacks the usage `COPY_DST`, or is mapped.
   * @throws {DeviceLostError} If the device has been lost.
   * @throws {Error} If the hit is disposed or its lease has expired.
   */
  scatterTo(kv: GroupedKv): Promise<boolean> {
    const { length } = this.#hit;
    const kvOfGroups = splitByGroup(this.#groups, kv);
    const operations = this.#groups.flatMap(({ layout }, g) => {
      const { chunkTokens } = layout;
      const ranges = this.ranges(g);
      const group = kvOfGroups[g] as SequenceKv;
      const first = length - ranges.length;
      checkSequenceKv(layout, group, { first: first * chunkTokens, end: this.tokens });
      return ranges.flatMap((range, i) => {
        const chunk = first + i;
        const tokens = Math.min(chunkTokens, this.tokens - chunk * chunkTokens);
        return copyOperations("scatter", layout, group, chunk, range, tokens);
      });
    });
    return Promise.resolve(this.#cache.device.copy(operations));
  }

  /**
   * Extends the lease by `l1.readTtlMs`, for engines that read the prefix in place for a long time.
   *
   * @returns Whether the prefix is still resident. If not, its memory may have been reused.
   */
  renew(): boolean {
    return this.#hit.renew();
  }

  /**
   * Says in one sentence how much of the prompt was served from where, why no more of it was, and at
   * which token it differs from the most similar of the prompts that were put last.
   */
  explain(): string {
    return explainPrefix(this.report);
  }

  /** Ends the lease. Does not affect copies already made. */
  [Symbol.dispose](): void {
    this.#hit[Symbol.dispose]();
  }
}

/** Maximum number of tokens of a prompt that a hit may cover: all but the last one. */
export function runnableAfter(promptTokens: number): number {
  return Math.max(0, promptTokens - 1);
}
