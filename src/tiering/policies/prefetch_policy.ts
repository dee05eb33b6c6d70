import type { ObjectKey } from "../../keys/object_key.ts";

/** Decides what becomes of objects that were loaded for a match. */
export interface PrefetchPolicy {
  /** Name of the policy. */
  readonly name: string;
  /** Whether a loaded object stays in L1 when its last reader has finished. Must not throw. */
  retains(key: ObjectKey): boolean;
}
