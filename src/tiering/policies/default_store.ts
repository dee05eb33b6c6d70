import type { StorePolicy } from "./store_policy.ts";

/** Everything goes to all adapters, and stays in L1. */
export const defaultStore: StorePolicy = {
  name: "default",
  writes: "at-once",
  keepsInL1: true,
};
