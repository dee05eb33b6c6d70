import type { StorePolicy } from "./store_policy.ts";

/** Only what L1 is about to evict is written, so that short-lived objects cost no writes. */
export const onEvict: StorePolicy = {
  name: "on_evict",
  writes: "before-eviction",
  keepsInL1: true,
};
