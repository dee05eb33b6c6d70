import type { StorePolicy } from "./store_policy.ts";

/** Stores every object in all adapters at once and keeps it in L1. */
export const defaultStore: StorePolicy = {
  name: "default",
  writes: "at-once",
  keepsInL1: true,
};
