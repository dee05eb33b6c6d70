import { ConfigError } from "../../l2/adapter_error.ts";
import { defaultPrefetch } from "./default_prefetch.ts";
import { defaultStore } from "./default_store.ts";
import { onEvict } from "./on_evict.ts";
import type { PrefetchPolicy } from "./prefetch_policy.ts";
import { retain } from "./retain.ts";
import { skipL1 } from "./skip_l1.ts";
import type { StorePolicy } from "./store_policy.ts";

const storePolicies: readonly StorePolicy[] = [defaultStore, skipL1, onEvict];
const prefetchPolicies: readonly PrefetchPolicy[] = [defaultPrefetch, retain];

/**
 * Resolves a store policy by name; returns a policy object as it is.
 *
 * @throws {ConfigError} If the name is unknown.
 */
export function resolveStorePolicy(policy: string | StorePolicy): StorePolicy {
  return resolve("store.policy", policy, storePolicies);
}

/**
 * Resolves a prefetch policy by name; returns a policy object as it is.
 *
 * @throws {ConfigError} If the name is unknown.
 */
export function resolvePrefetchPolicy(policy: string | PrefetchPolicy): PrefetchPolicy {
  return resolve("prefetch.policy", policy, prefetchPolicies);
}

function resolve<Policy extends { readonly name: string }>(
  option: string,
  policy: string | Policy,
  known: readonly Policy[],
): Policy {
  if (typeof policy !== "string") return policy;
  const found = known.find(({ name }) => name === policy);
  if (found !== undefined) return found;
  throw new ConfigError({
    adapter: option,
    expected: `${known.map(({ name }) => `"${name}"`).join(", ")} or a policy of your own`,
    received: policy,
  });
}
