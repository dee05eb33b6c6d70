import type { PrefetchPolicy } from "./prefetch_policy.ts";

/** Keeps a loaded object in L1 until its space is needed. */
export const retain: PrefetchPolicy = {
  name: "retain",
  retains: () => true,
};
