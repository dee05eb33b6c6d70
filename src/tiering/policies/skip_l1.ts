import type { StorePolicy } from "./store_policy.ts";

/** L1 is a bounce buffer: an object leaves it as soon as an adapter has it. */
export const skipL1: StorePolicy = {
  name: "skip_l1",
  writes: "at-once",
  keepsInL1: false,
};
