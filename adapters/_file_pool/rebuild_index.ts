import type { Limiter } from "../../src/base/limiter.ts";
import type { OsCalls } from "../_shared/os_calls.ts";
import type { PoolIndex } from "./index_file.ts";
import type { ReadHeader } from "./slot_format.ts";
import type { SlotFiles } from "./slot_files.ts";

/** Options of {@linkcode rebuildIndex}. */
export interface RebuildOptions {
  /** Limits how many slots are inspected at a time. */
  readonly limiter: Limiter;
  /** This adapter's share of Deno's threads. */
  readonly calls: OsCalls;
  /** Called for each slot that cannot be read; it counts as free. */
  readonly onError: (cause: unknown) => void;
}

/**
 * Rebuilds the index from the slots. Of two objects with one key, the newer one counts; the slot of
 * the older one is cleared, so that it cannot reappear later.
 */
export async function rebuildIndex(
  files: SlotFiles,
  { limiter, calls, onError }: RebuildOptions,
): Promise<PoolIndex> {
  const slots = Array.from({ length: files.geometry.slots }, (_, slot) => slot);
  const found: ReadHeader[] = [];
  await limiter.forEach(slots, () => 0, async (slot) => {
    try {
      const header = await calls.run("load", undefined, () => files.inspect(slot));
      if (header !== undefined) found.push(header);
    } catch (cause) {
      onError(cause);
    }
  });
  found.sort((a, b) => b.sequence - a.sequence);
  const newest = new Map<string, ReadHeader>();
  const outdated: number[] = [];
  for (const header of found) {
    if (newest.has(header.key.id)) outdated.push(header.slot);
    else newest.set(header.key.id, header);
  }
  await limiter.forEach(outdated, () => 0, async (slot) => {
    try {
      await calls.run("load", undefined, () => files.clear(slot));
    } catch (cause) {
      onError(cause);
    }
  });
  return {
    objects: [...newest.values()].reverse(),
    nextSequence: (found[0]?.sequence ?? 0) + 1,
  };
}
