import type { StorePolicy } from "./store_policy.ts";

/** Uses L1 as a bounce buffer: an object leaves it as soon as an adapter has stored it. */
export const skipL1: StorePolicy = {
  name: "skip_l1",
  writes: "at-once",
  keepsInL1: false,
};
