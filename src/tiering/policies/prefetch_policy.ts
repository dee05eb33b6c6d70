import type { ObjectKey } from "../../keys/object_key.ts";

/** Decides whether objects loaded for a match stay in L1. */
export interface PrefetchPolicy {
  /** Name of the policy. */
  readonly name: string;
  /** Whether a loaded object stays in L1 after its last lease ends. Must not throw. */
  retains(key: ObjectKey): boolean;
}
