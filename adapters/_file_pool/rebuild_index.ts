import type { OsCalls } from "../_shared/os_calls.ts";
import type { IoSlots } from "../_shared/io_slots.ts";
import type { PoolIndex } from "./index_file.ts";
import type { ReadHeader } from "./slot_format.ts";
import type { SlotFiles } from "./slot_files.ts";

/** How {@linkcode rebuildIndex} works. */
export interface RebuildOptions {
  /** Bounds how many slots are looked at at a time. */
  readonly slots: IoSlots;
  /** The threads that may be used for that. */
  readonly calls: OsCalls;
  /** Told about slots that cannot be read; they count as free. */
  readonly onError: (cause: unknown) => void;
}

/**
 * Learns from the slots which objects are in them. Of two with one key the newer counts, and the
 * slot of the older is cleared, so that it cannot come back when the newer is gone.
 */
export async function rebuildIndex(
  files: SlotFiles,
  { slots: io, calls, onError }: RebuildOptions,
): Promise<PoolIndex> {
  const slots = Array.from({ length: files.geometry.slots }, (_, slot) => slot);
  const found: ReadHeader[] = [];
  await io.forEach(slots, () => 0, async (slot) => {
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
  await io.forEach(outdated, () => 0, async (slot) => {
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
