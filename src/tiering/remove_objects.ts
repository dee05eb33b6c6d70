import type { ObjectKey } from "../keys/object_key.ts";
import type { AdapterGuard } from "../l2/adapter_guard.ts";

/** Objects that an adapter removes with one call. */
export const REMOVAL_BATCH = 256;

/** What became of objects that an adapter was to remove. */
export interface Removal {
  /** Objects that are removed. */
  readonly objects: number;
  /** Bytes that are free now. */
  readonly bytes: number;
  /** Objects that are there and could not be removed: mostly, somebody is loading them. */
  readonly locked: readonly ObjectKey[];
  /** Objects that were not there. */
  readonly absent: readonly ObjectKey[];
  /** Objects of which nothing is known, because the adapter did not work. */
  readonly unknown: readonly ObjectKey[];
  /** The adapter was not asked: it is closed, or left alone for a while. */
  readonly isSkipped: boolean;
}

/** Removes objects from an adapter, and finds out about those that it did not remove. */
export async function removeObjects(
  guard: AdapterGuard,
  keys: readonly ObjectKey[],
): Promise<Removal> {
  const before = guard.troubles;
  const { deleted, bytes, skipped = false } = await guard.delete(keys);
  const missed = deleted.invert().gather(keys);
  const removal = {
    objects: keys.length - missed.length,
    bytes,
    locked: [],
    absent: [],
    unknown: [],
    isSkipped: skipped,
  };
  if (missed.length === 0) return removal;
  if (guard.troubles > before) return { ...removal, unknown: missed };
  const answer = await lookFor(guard, missed);
  if (answer === undefined) return { ...removal, unknown: missed };
  return { ...removal, locked: answer.found, absent: answer.absent };
}

/** Which objects an adapter holds; `undefined` if it does not answer. */
export async function lookFor(
  guard: AdapterGuard,
  keys: readonly ObjectKey[],
): Promise<{ found: ObjectKey[]; absent: ObjectKey[] } | undefined> {
  const before = guard.troubles;
  const bits = await guard.lookup(keys, { prefix: false });
  const found = bits.gather(keys);
  guard.unlock(found);
  if (guard.troubles > before) return undefined;
  return { found, absent: bits.invert().gather(keys) };
}
