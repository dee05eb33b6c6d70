import type { IoSlots } from "../_shared/io_slots.ts";
import type { PoolIndex } from "./index_file.ts";
import type { ReadHeader } from "./slot_format.ts";
import type { SlotFiles } from "./slot_files.ts";

/**
 * Learns from the slots which objects are in them. Of two with one key the newer counts, and the
 * slot of the older is cleared, so that it cannot come back when the newer is gone.
 *
 * @param onError Told about slots that cannot be read; they count as free.
 */
export async function rebuildIndex(
  files: SlotFiles,
  io: IoSlots,
  onError: (cause: unknown) => void,
): Promise<PoolIndex> {
  const slots = Array.from({ length: files.geometry.slots }, (_, slot) => slot);
  const found: ReadHeader[] = [];
  await io.forEach(slots, () => 0, async (slot) => {
    try {
      const header = await files.inspect(slot);
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
      await files.clear(slot);
    } catch (cause) {
      onError(cause);
    }
  });
  return {
    objects: [...newest.values()].reverse(),
    nextSequence: (found[0]?.sequence ?? 0) + 1,
  };
}
