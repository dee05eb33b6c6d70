import type { ObjectKey } from "../keys/object_key.ts";
import type { Clock } from "../runtime/clock.ts";
import type { AdapterSet } from "./adapter_set.ts";
import { firstNeeded, type KeyGroup } from "./key_rows.ts";
import type { PrefetchResult } from "./prefetch_request.ts";

/** Time that hits are collected before the adapters are told. */
const COLLECT_MS = 1_000;
/** A prefix that adapters were told of is left out for one to two of these. */
const TOLD_MS = 5_000;
/** Prefixes that are remembered for that; beyond it they are told of again sooner. */
const MAX_TOLD = 4_096;
/** Keys that wait to be told; beyond it hits are left out. */
const MAX_KEYS = 16_384;

/** The keys of one group, and what of them a prefix needs. */
type UsedKeys = Pick<KeyGroup, "keys" | "windowChunks">;

/** A prefix that was served. */
interface Use {
  readonly groups: readonly UsedKeys[];
  readonly length: number;
}

/**
 * Tells adapters of hits that device memory served, so that what is used most does not leave them
 * first. A match costs a few steps here however long its prefix is, and nothing where no adapter
 * wants to know; the adapters are told later, of each prefix only now and then.
 */
export class UseReporter implements Disposable {
  readonly #adapters: AdapterSet;
  readonly #clock: Clock;
  /** Ids of the last objects of prefixes that adapters were told of, in two generations. */
  #told = new Set<string>();
  #toldBefore = new Set<string>();
  #toldSince: number;
  #uses: Use[] = [];
  #waitingKeys = 0;
  #cancelTimer: (() => void) | undefined;

  /** Reports to the adapters of a set. */
  constructor(adapters: AdapterSet, clock: Clock) {
    this.#adapters = adapters;
    this.#clock = clock;
    this.#toldSince = clock.now();
  }

  /** Notes what a match served, or a put found in device memory. */
  note(
    groups: readonly UsedKeys[],
    { length, l1Objects }: Pick<PrefetchResult, "length" | "l1Objects">,
  ): void {
    const { all } = this.#adapters;
    // An adapter that served all of it knows.
    if (length === 0 || (l1Objects === 0 && all.length < 2)) return;
    if (this.#waitingKeys >= MAX_KEYS || !all.some(({ wantsUses }) => wantsUses)) return;
    const end = groups[0]?.keys[length - 1]?.id;
    if (end === undefined || this.#wasTold(end)) return;
    this.#told.add(end);
    this.#uses.push({ groups, length });
    this.#waitingKeys += length * groups.length;
    this.#cancelTimer ??= this.#clock.schedule(() => this.tell(), COLLECT_MS, { background: true });
  }

  /** Tells the adapters now of what was noted. */
  tell(): void {
    this.#cancelTimer?.();
    this.#cancelTimer = undefined;
    const keys = this.#takeKeys();
    if (keys.length === 0) return;
    for (const guard of this.#adapters.all) if (guard.wantsUses) guard.touch(keys);
  }

  /** Tells the adapters what they were not told yet. */
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

  /** Each key once, the head of a prefix before its tail, those of the last match first. */
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
