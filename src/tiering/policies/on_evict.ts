import type { StorePolicy } from "./store_policy.ts";

/** Stores only objects that L1 is about to evict, so that short-lived objects cost no writes. */
export const onEvict: StorePolicy = {
  name: "on_evict",
  writes: "before-eviction",
  keepsInL1: true,
};
