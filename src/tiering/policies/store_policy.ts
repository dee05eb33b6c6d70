import type { WrittenObject } from "../../l1/l1_cache.ts";
import type { AdapterCapabilities } from "../../l2/adapter.ts";

/** What a store policy sees of an adapter. */
export interface StoreTarget {
  /** Stable id of the adapter. */
  readonly id: number;
  /** Type of the adapter. */
  readonly type: string;
  /** Capabilities of the adapter. */
  readonly capabilities: AdapterCapabilities;
}

/** Decides which objects of an engine are stored in which adapters, and when. */
export interface StorePolicy {
  /** Name of the policy. */
  readonly name: string;
  /**
   * Whether objects are stored as soon as possible, or only when L1 is about to need their space.
   */
  readonly writes: "at-once" | "before-eviction";
  /** Whether an object stays in L1 after an adapter has stored it. */
  readonly keepsInL1: boolean;
  /** Chooses the adapters that get an object; if left out, all do. Must not throw. */
  targets?(object: WrittenObject, adapters: readonly StoreTarget[]): readonly StoreTarget[];
}
