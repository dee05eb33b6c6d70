import type { PrefetchPolicy } from "./prefetch_policy.ts";

/** What was loaded leaves L1 with its last reader. */
export const defaultPrefetch: PrefetchPolicy = {
  name: "default",
  retains: () => false,
};
