import { getLogger } from "@logtape/logtape";
import type { AdapterCapabilities } from "../adapter/contract.ts";
import { bytesWithTrailer } from "../adapter/object_trailer.ts";
import { namedChoice } from "../base/named_choice.ts";
import type { WrittenObject } from "../l1/l1_cache.ts";

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
  /**
   * Which objects are worth a write: all, or only those that are written or hit a second time.
   * @default {"all"}
   */
  readonly admits?: "all" | "second-touch";
  /** Chooses the adapters that get an object; if left out, all do. Must not throw. */
  targets?(object: WrittenObject, adapters: readonly StoreTarget[]): readonly StoreTarget[];
}

/** Stores every object in all adapters at once and keeps it in L1. */
export const defaultStore: StorePolicy = { name: "default", writes: "at-once", keepsInL1: true };

/** Uses L1 as a bounce buffer: an object leaves it as soon as an adapter has stored it. */
export const skipL1: StorePolicy = { name: "skip_l1", writes: "at-once", keepsInL1: false };

/** Stores only objects that L1 is about to evict, so that short-lived objects cost no writes. */
export const onEvict: StorePolicy = {
  name: "on_evict",
  writes: "before-eviction",
  keepsInL1: true,
};

/**
 * Stores only objects that are written again, or hit in L1: far fewer writes, but what is used for
 * the second time has to be computed twice unless L1 still has it.
 */
export const secondTouch: StorePolicy = {
  name: "second_touch",
  writes: "at-once",
  keepsInL1: true,
  admits: "second-touch",
};

const logger = getLogger(["kvtier", "store"]);

/** Adapters that the policy chooses for an object and that accept its size. */
export function chooseTargets<Target extends StoreTarget>(
  policy: StorePolicy,
  object: WrittenObject,
  adapters: readonly Target[],
): readonly Target[] {
  let targets: readonly StoreTarget[] | undefined;
  try {
    targets = policy.targets?.(object, adapters);
  } catch (error) {
    const { name } = policy;
    logger.error("Store policy {name} failed, all adapters get the object: {error}", {
      name,
      error,
    });
  }
  const bytes = bytesWithTrailer(object.key, object.layout);
  return adapters.filter(({ id, capabilities: { maxObjectBytes = Infinity } }) =>
    bytes <= maxObjectBytes && (targets?.some((target) => target.id === id) ?? true)
  );
}

/** Resolves the option `store.policy`; throws a `ConfigError` for an unknown name. */
export function resolveStorePolicy(policy: string | StorePolicy): StorePolicy {
  return namedChoice("store.policy", policy, [defaultStore, skipL1, onEvict, secondTouch]);
}
