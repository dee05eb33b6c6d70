import type { PrefetchPolicy } from "./prefetch_policy.ts";

/** Removes a loaded object from L1 when its last lease ends. */
export const defaultPrefetch: PrefetchPolicy = {
  name: "default",
  retains: () => false,
};
