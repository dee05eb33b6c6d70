import type { CacheHit } from "../cache_hit.ts";
import type { MemoryRange } from "../memory/memory_device.ts";
import { checkNumber } from "../runtime/options.ts";
import type { TieredCache } from "../tiered_cache.ts";
import { checkSequenceKv, scatterOperations, type SequenceKv } from "./kv_binding.ts";
import { chunksOf, firstOf, type GroupedKv, type KvGroup, splitByGroup } from "./kv_groups.ts";

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
   * @param group Number of the group.
   * @throws {RangeError} If there is no such group.
   * @throws {DeviceLostError} If the device was lost since.
   * @throws {Error} If the hit was disposed, or held for longer than pins live.
   */
  ranges(group = 0): MemoryRange[] {
    const maximum = this.#groups.length - 1;
    checkNumber("group", group, { minimum: 0, maximum, multipleOf: 1 });
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
      const group = kvOfGroups[g] as SequenceKv;
      const first = length - ranges.length;
      checkSequenceKv(layout, group, { first: first * chunkTokens, end: this.tokens });
      return ranges.flatMap((range, i) => {
        const chunk = first + i;
        const tokens = Math.min(chunkTokens, this.tokens - chunk * chunkTokens);
        return scatterOperations(layout, group, chunk, range, tokens);
      });
    });
    return Promise.resolve(this.#cache.device.copy(operations));
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

/** Tokens of a prompt after which there is still one to run. */
export function runnableAfter(promptTokens: number): number {
  return Math.max(0, promptTokens - 1);
}
