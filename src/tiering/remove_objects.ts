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
  /** Objects that are there although the adapter says that it removed them; if that was asked. */
  readonly stayed: readonly ObjectKey[];
  /** Objects that were not there. */
  readonly absent: readonly ObjectKey[];
  /** Objects of which nothing is known, because the adapter did not work. */
  readonly unknown: readonly ObjectKey[];
  /** The adapter was not asked: it is closed, or left alone for a while. */
  readonly isSkipped: boolean;
}

/**
 * Removes objects from an adapter, and finds out about those that it did not remove.
 *
 * @param options.isVerified Whether those that it says to have removed are looked for, too.
 */
export async function removeObjects(
  guard: AdapterGuard,
  keys: readonly ObjectKey[],
  { isVerified = false }: { readonly isVerified?: boolean } = {},
): Promise<Removal> {
  const before = guard.unansweredCalls;
  const { deleted, bytes, skipped = false } = await guard.delete(keys);
  const missed = deleted.invert().gather(keys);
  const removal = {
    objects: keys.length - missed.length,
    bytes,
    locked: [],
    stayed: [],
    absent: [],
    unknown: [],
    isSkipped: skipped,
  };
  const asked = isVerified && guard.takesLookups ? keys : missed;
  if (asked.length === 0) return removal;
  if (guard.unansweredCalls > before) return { ...removal, unknown: missed };
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

/** Which objects an adapter holds; `undefined` if it does not answer. */
export async function lookFor(
  guard: AdapterGuard,
  keys: readonly ObjectKey[],
): Promise<{ found: ObjectKey[]; absent: ObjectKey[] } | undefined> {
  const before = guard.unansweredCalls;
  const bits = await guard.lookup(keys, { prefix: false });
  const found = bits.gather(keys);
  guard.unlock(found);
  if (guard.unansweredCalls > before) return undefined;
  return { found, absent: bits.invert().gather(keys) };
}
