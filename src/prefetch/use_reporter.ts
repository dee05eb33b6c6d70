import type { ObjectKey } from "../keys/object_key.ts";
import type { Clock } from "../base/clock.ts";
import type { AdapterSet } from "../l2/adapter_set.ts";
import { firstNeeded, type KeyGroup } from "./key_group.ts";
import type { PrefetchResult } from "./prefetch_request.ts";

/** How long hits are collected before the adapters are told, in milliseconds. */
const COLLECT_MS = 1_000;
/** A reported prefix is not reported again for one to two times this long. */
const TOLD_MS = 5_000;
/** Number of reported prefixes to remember; beyond it they are reported again sooner. */
const MAX_TOLD = 4_096;
/** Maximum number of keys waiting to be reported; beyond it hits are ignored. */
const MAX_KEYS = 16_384;

/** Keys of one group, and how many of them a prefix needs. */
type UsedKeys = Pick<KeyGroup, "keys" | "windowChunks">;

/** A served prefix. */
interface Use {
  readonly groups: readonly UsedKeys[];
  readonly length: number;
}

/**
 * Reports hits in device memory to the adapters, so that they do not evict what is used most.
 * Noting a match takes constant time whatever its length, and returns at once if no adapter wants
 * uses. Reports are delayed, and each prefix is reported only occasionally.
 */
export class UseReporter implements Disposable {
  readonly #adapters: AdapterSet;
  readonly #clock: Clock;
  /** Last object ids of recently reported prefixes, in two generations. */
  #told = new Set<string>();
  #toldBefore = new Set<string>();
  #toldSince: number;
  #uses: Use[] = [];
  #waitingKeys = 0;
  #cancelTimer: (() => void) | undefined;

  constructor(adapters: AdapterSet, clock: Clock) {
    this.#adapters = adapters;
    this.#clock = clock;
    this.#toldSince = clock.now();
  }

  /** Records the prefix that a match served, or that a put found in device memory. */
  note(
    groups: readonly UsedKeys[],
    { length, l1Objects }: Pick<PrefetchResult, "length" | "l1Objects">,
  ): void {
    const { all } = this.#adapters;
    // A single adapter that served the whole prefix already counted the use.
    if (length === 0 || (l1Objects === 0 && all.length < 2)) return;
    if (this.#waitingKeys >= MAX_KEYS || !all.some(({ wantsUses }) => wantsUses)) return;
    const end = groups[0]?.keys[length - 1]?.id;
    if (end === undefined || this.#wasTold(end)) return;
    this.#told.add(end);
    this.#uses.push({ groups, length });
    this.#waitingKeys += length * groups.length;
    this.#cancelTimer ??= this.#clock.schedule(() => this.tell(), COLLECT_MS, { background: true });
  }

  /** Reports everything recorded so far. */
  tell(): void {
    this.#cancelTimer?.();
    this.#cancelTimer = undefined;
    const keys = this.#takeKeys();
    if (keys.length === 0) return;
    for (const guard of this.#adapters.all) if (guard.wantsUses) guard.touch(keys);
  }

  /** Reports what is still waiting. */
  [Symbol.dispose](): void {
    this.tell();
  }

  #wasTold(end: string): boolean {
    const now = this.#clock.now();
    if (now - this.#toldSince >= TOLD_MS || this.#told.size >= MAX_TOLD) {
      const isLong = now - this.#toldSince >= 2 * TOLD_MS;
      this.#toldBefore = isLong ? new Set() : this.#told;
      this.#told = new Set();
      this.#toldSince = now;
    }
    return this.#told.has(end) || this.#toldBefore.has(end);
  }

  /** Returns each key once, heads of prefixes before their tails, latest match first. */
  #takeKeys(): ObjectKey[] {
    const keys = new Map<string, ObjectKey>();
    for (const { groups, length } of this.#uses.toReversed()) {
      for (let chunk = 0; chunk < length; chunk++) {
        for (const group of groups) {
          const key = group.keys[chunk];
          if (key !== undefined && chunk >= firstNeeded(group, length)) keys.set(key.id, key);
        }
      }
    }
    this.#uses = [];
    this.#waitingKeys = 0;
    return [...keys.values()];
  }
}
