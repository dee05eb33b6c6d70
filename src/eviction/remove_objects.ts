import type { ObjectKey } from "../keys/object_key.ts";
import type { AdapterGuard } from "../l2/adapter_guard.ts";

/** Maximum number of objects in one delete call. */
export const REMOVAL_BATCH = 256;

/** Result of removing objects from an adapter. */
export interface Removal {
  /** Number of removed objects. */
  readonly objects: number;
  /** Bytes freed. */
  readonly bytes: number;
  /** Objects that exist but could not be removed, usually because a load has them locked. */
  readonly locked: readonly ObjectKey[];
  /**
   * Objects that still exist although the adapter reported them removed; filled only with
   * `isVerified`.
   */
  readonly stayed: readonly ObjectKey[];
  /** Objects that did not exist. */
  readonly absent: readonly ObjectKey[];
  /** Objects whose state is unknown because the adapter failed. */
  readonly unknown: readonly ObjectKey[];
  /** Whether the call was skipped. */
  readonly isSkipped: boolean;
}

/**
 * Removes objects from an adapter and looks up those that it did not remove.
 *
 * @param options.isVerified Whether to look up the objects that the adapter reports as removed,
 * too.
 */
export async function removeObjects(
  guard: AdapterGuard,
  keys: readonly ObjectKey[],
  { isVerified = false }: { readonly isVerified?: boolean } = {},
): Promise<Removal> {
  const { status, done: deleted, bytes } = await guard.delete(keys);
  const missed = deleted.invert().gather(keys);
  const removal = {
    objects: keys.length - missed.length,
    bytes,
    locked: [],
    stayed: [],
    absent: [],
    unknown: [],
    isSkipped: status === "skipped",
  };
  const asked = isVerified && guard.takesLookups ? keys : missed;
  if (asked.length === 0) return removal;
  if (status !== "answered") return { ...removal, unknown: missed };
  const answer = await lookFor(guard, asked);
  if (answer === undefined) return { ...removal, unknown: missed };
  const present = new Set(answer.found.map(({ id }) => id));
  const stayed = deleted.gather(keys).filter(({ id }) => present.has(id));
  return {
    ...removal,
    objects: removal.objects - stayed.length,
    locked: missed.filter(({ id }) => present.has(id)),
    stayed,
    absent: missed.filter(({ id }) => !present.has(id)),
  };
}

/** Looks up which objects an adapter holds; `undefined` if it fails. */
export async function lookFor(
  guard: AdapterGuard,
  keys: readonly ObjectKey[],
): Promise<{ found: ObjectKey[]; absent: ObjectKey[] } | undefined> {
  const { status, done } = await guard.lookup(keys, { prefix: false });
  if (status !== "answered") return undefined;
  const found = done.gather(keys);
  guard.unlock(found);
  return { found, absent: done.invert().gather(keys) };
}
