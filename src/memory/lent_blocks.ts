import type { ReadBack } from "./memory_device.ts";
import type { StagingPool } from "./staging_pool.ts";

/**
 * Objects in the blocks of a pool, which get the blocks back when they are disposed of.
 *
 * @param reset Makes the blocks ready for their next use; returns whether it could.
 */
export function lendBlocks<Block>(
  pool: StagingPool<Block>,
  blocks: readonly Block[],
  objects: ReadBack["objects"],
  reset: () => boolean = () => true,
): ReadBack {
  let state: "lent" | "abandoned" | "disposed" = "lent";
  return {
    objects,
    abandon: () => {
      if (state !== "lent") return;
      state = "abandoned";
      pool.abandon(blocks);
    },
    [Symbol.dispose]: () => {
      const before = state;
      state = "disposed";
      if (before === "abandoned") pool.destroy(blocks);
      if (before !== "lent") return;
      if (reset()) pool.release(blocks);
      else pool.discard(blocks);
    },
  };
}
