import { namedChoice } from "../base/named_choice.ts";
import type { ObjectKey } from "../keys/object_key.ts";

/** Decides whether objects loaded for a match stay in L1. */
export interface PrefetchPolicy {
  /** Name of the policy. */
  readonly name: string;
  /** Whether a loaded object stays in L1 after its last lease ends. Must not throw. */
  retains(key: ObjectKey): boolean;
}

/** Removes a loaded object from L1 when its last lease ends. */
export const defaultPrefetch: PrefetchPolicy = { name: "default", retains: () => false };

/** Keeps a loaded object in L1 until its space is needed. */
export const retain: PrefetchPolicy = { name: "retain", retains: () => true };

/** Resolves the option `prefetch.policy`; throws a `ConfigError` for an unknown name. */
export function resolvePrefetchPolicy(policy: string | PrefetchPolicy): PrefetchPolicy {
  return namedChoice("prefetch.policy", policy, [defaultPrefetch, retain]);
}
