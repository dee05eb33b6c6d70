import type { WrittenObject } from "../../l1/l1_cache.ts";
import type { AdapterCapabilities } from "../../l2/adapter.ts";

/** An adapter as far as a policy needs to know it. */
export interface StoreTarget {
  /** Its stable id. */
  readonly id: number;
  /** Its type. */
  readonly type: string;
  /** What it promises. */
  readonly capabilities: AdapterCapabilities;
}

/** Decides which of an engine's objects go to which adapters, and when. */
export interface StorePolicy {
  /** Name of the policy. */
  readonly name: string;
  /** Whether objects are written as soon as they can be, or only when L1 is about to need their room. */
  readonly writes: "at-once" | "before-eviction";
  /** Whether an object stays in L1 once an adapter has it. */
  readonly keepsInL1: boolean;
  /** Which of the adapters get an object; left out, all do. Must not throw. */
  targets?(object: WrittenObject, adapters: readonly StoreTarget[]): readonly StoreTarget[];
}
