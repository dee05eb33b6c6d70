import type { PrefetchPolicy } from "./prefetch_policy.ts";

/** What was loaded stays in L1 until its room is needed. */
export const retain: PrefetchPolicy = {
  name: "retain",
  retains: () => true,
};
