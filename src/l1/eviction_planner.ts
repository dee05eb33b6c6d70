import type { ObjectKey } from "../keys/object_key.ts";
import type { L1Entry } from "./l1_entry.ts";
import type { ObjectTable } from "./object_table.ts";
import { SaltUsage } from "./salt_usage.ts";

/** Space to be made for a batch. */
export interface SpaceRequest {
  readonly keys: readonly ObjectKey[];
  /** Bytes that each object occupies. */
  readonly bytes: number;
  /** Ids of objects that must not be evicted for the batch. */
  readonly excluded: ReadonlySet<string>;
}

/** Selects eviction candidates in the policy's order, before anything is evicted. */
export class EvictionPlanner {
  readonly #table: ObjectTable;
  readonly #quotaOf: (salt: string) => number | undefined;

  /** Plans evictions from `table`. */
  constructor(
    table: ObjectTable,
    quotaOf: (salt: string) => number | undefined = () => undefined,
  ) {
    this.#table = table;
    this.#quotaOf = quotaOf;
  }

  /**
   * Candidates whose eviction keeps every salt within its quota; `null` if evicting them would not
   * be enough.
   */
  candidatesForQuotas({ keys, bytes, excluded }: SpaceRequest, now: number): L1Entry[] | null {
    const candidates: L1Entry[] = [];
    if (keys.every(({ cacheSalt }) => this.#quotaOf(cacheSalt) === undefined)) return candidates;
    const wanted = new SaltUsage();
    for (const { cacheSalt } of keys) wanted.add(cacheSalt, bytes);
    for (const [salt, wantedBytes] of wanted.all()) {
      const quota = this.#quotaOf(salt);
      if (quota === undefined) continue;
      const excess = (): number => this.#table.usageOf(salt) + wantedBytes - quota;
      if (excess() > 0) this.#table.reclaimExpired(now);
      let left = excess();
      if (left <= 0) continue;
      if (wantedBytes > quota) return null;
      for (const entry of this.#table.idle(salt)) {
        if (excluded.has(entry.key.id)) continue;
        candidates.push(entry);
        left -= entry.bytes;
        if (left <= 0) break;
      }
      if (left > 0) return null;
    }
    return candidates;
  }

  /** Whether evicting every candidate frees enough bytes, ignoring fragmentation. */
  canHold({ keys, bytes, excluded }: SpaceRequest, now: number): boolean {
    const table = this.#table;
    const missing = (): number => keys.length * bytes - table.allocator.unusedBytes;
    if (missing() <= 0) return true;
    table.reclaimExpired(now);
    return missing() <= this.#evictableBytes(excluded);
  }

  #evictableBytes(excluded: ReadonlySet<string>): number {
    let bytes = this.#table.idleBytes;
    for (const id of excluded) {
      const entry = this.#table.get(id);
      if (entry?.isIdle === true) bytes -= entry.bytes;
    }
    return bytes;
  }
}
